-- name: lock_user
-- One at a time for a user, so that two cannot both take the last place below the limit.
select pg_advisory_xact_lock(hashtextextended('quotes of ' || caller_id(), 0));

-- name: create_quote
-- No row where the caller holds as many unexpired ones as anybody may. What of theirs is over for a week is swept on
-- the way: jobs keep their own copy.
with swept as (
    delete from lora_quotes where expires_at < now() - interval '7 days'
), held as (
    select count(*) as quotes from lora_quotes where expires_at > now()
)
insert into lora_quotes (
    user_id, dataset_id, terms, configuration_digest, dataset_revision, catalogue_version, cost_p50, cost_p90,
    request, answer, expires_at
)
select (select caller_id()), $1, $2, $3, $4, $5, $6, $7, $8, $9, now() + $10 * interval '1 second'
from held where held.quotes < $11
returning *, false as expired;

-- name: get_quote
-- Row-level security makes another user's quote as absent as one that never was. The database's clock says what is over.
select *, expires_at <= now() as expired from lora_quotes where id = $1;
