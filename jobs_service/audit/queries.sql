-- name: list_audit_events
-- A page of the caller's events with the total. $1: the action, null for all.
select counted.total, page.*
from (
    select count(*) as total from audit_events
    where user_id = (select caller_id()) and ($1::text is null or action = $1)
) counted
left join lateral (
    select * from audit_events
    where user_id = (select caller_id()) and ($1::text is null or action = $1)
    order by id desc
    limit $2 offset $3
) page on true
order by page.id desc;

-- name: export_audit_events
-- Up to $4 of the caller's events after the id $2 and not after $3, oldest first. $1: the action, null for all.
select * from audit_events
where user_id = (select caller_id()) and ($1::text is null or action = $1) and id > $2 and id <= $3
order by id
limit $4;

-- name: newest_audit_event
-- Id of the caller's newest event; 0 if there is none.
select coalesce(max(id), 0) from audit_events where user_id = (select caller_id());

-- name: record_download
-- Row-level security hides jobs of other users, and then nothing is recorded.
insert into audit_events (user_id, action, resource_id, resource_name, api_key_id, address, client_address, request_id)
select
    j.user_id, 'artifact_downloaded', j.id, coalesce(j.name, ''), (c.claims ->> 'api_key_id')::uuid, c.claims ->> 'address',
    c.claims ->> 'client_address', c.claims ->> 'request_id'
from lora_training_jobs j
cross join (select current_setting('request.jwt.claims')::jsonb as claims) c
where j.id = $1;
