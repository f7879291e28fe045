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
