-- name: lock_user
-- Serializes a user's creations, so that two at once cannot exceed the limit.
select pg_advisory_xact_lock(hashtextextended('api keys of ' || caller_id(), 0));

-- name: create_api_key
-- Returns no row if the caller has $7 keys already. The hash is written and never read here. Default expiry: 90 days.
insert into api_keys (user_id, role, name, key_hash, prefix, scopes, expires_at)
select (select caller_id()), $1, $2, $3, $4, $5::text[], coalesce($6::timestamptz, now() + interval '90 days')
where (select count(*) from api_keys where user_id = (select caller_id())) < $7::integer
returning id, name, prefix, scopes, created_at, expires_at, last_used_at;

-- name: list_api_keys
-- All of the caller's keys; a user has few.
select id, name, prefix, scopes, created_at, expires_at, last_used_at
from api_keys
where user_id = (select caller_id())
order by created_at desc, id desc;

-- name: delete_api_key
-- Row-level security hides keys of other users.
delete from api_keys where id = $1 returning id;

-- name: prune_api_keys
-- Deletes up to $2 keys that expired more than $1 ago.
delete from api_keys
where id in (select id from api_keys where expires_at < now() - $1::interval limit $2);
