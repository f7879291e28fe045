-- name: lock_user
-- One creation at a time for a user, so that two cannot both take the last place below the limit.
select pg_advisory_xact_lock(hashtextextended('webhooks of ' || caller_id(), 0));

-- name: use
-- Counts one more thing that costs others something. Nothing where the hour's are used up.
insert into webhook_uses as known (user_id) values ((select caller_id()))
on conflict on constraint webhook_uses_pkey do update set
    uses = case when known.since > now() - interval '1 hour' then known.uses + 1 else 1 end,
    since = case when known.since > now() - interval '1 hour' then known.since else now() end
where known.uses < $1 or known.since <= now() - interval '1 hour'
returning uses;

-- name: forget_uses
-- Of hours that are over, up to $1.
delete from webhook_uses
where since <= now() - interval '1 hour'
and user_id in (select user_id from webhook_uses where since <= now() - interval '1 hour' limit $1);

-- name: count_webhooks
-- How many there are of the caller's.
select count(*) from webhooks where user_id = (select caller_id());

-- name: find_webhook
-- The webhook that an idempotency key made before.
select
    id, user_id, url, description, event_types, disabled_reason, failing_since, old_secret_until, created_at, updated_at,
    request_digest
from webhooks
where request_id = $1;

-- name: create_webhook
-- Nothing where the user has as many as one may have. Secrets go in and never come out again.
insert into webhooks (user_id, url, description, event_types, secret, request_id, request_digest)
select (select caller_id()), $1, $2, $3::text[], $4, $6, $7
where (select count(*) from webhooks where user_id = (select caller_id())) < $5
returning
    id, user_id, url, description, event_types, disabled_reason, failing_since, old_secret_until, created_at, updated_at;

-- name: get_webhook
-- Row-level security makes another user's webhook as absent as one that never was.
select id, user_id, url, description, event_types, disabled_reason, failing_since, old_secret_until, created_at, updated_at
from webhooks
where id = $1;

-- name: list_webhooks
-- All of them: there are few.
select id, user_id, url, description, event_types, disabled_reason, failing_since, old_secret_until, created_at, updated_at
from webhooks
where user_id = (select caller_id())
order by created_at, id;

-- name: update_webhook
-- One that is enabled again, or goes elsewhere, has not failed yet.
update webhooks set
    url = $2, description = $3, event_types = $4::text[],
    disabled_reason = case when not $5::boolean then coalesce(disabled_reason, 'by_owner') end,
    failing_since = case when url = $2 and not ($5 and disabled_reason is not null) then failing_since end,
    updated_at = now()
where id = $1
returning
    id, user_id, url, description, event_types, disabled_reason, failing_since, old_secret_until, created_at, updated_at;

-- name: rotate_secret
-- A trigger keeps the one before for a day.
update webhooks set secret = $2, updated_at = now()
where id = $1
returning
    id, user_id, url, description, event_types, disabled_reason, failing_since, old_secret_until, created_at, updated_at;

-- name: end_deliveries
-- What waits for a webhook that was disabled.
update webhook_deliveries set status = 'failed', finished_at = now(), next_attempt_at = null
where webhook_id = $1 and status = 'pending';

-- name: delete_deliveries
-- Before the webhook itself, in the order in which a sender that has just finished locks them. Attempts go with them.
delete from webhook_deliveries where webhook_id = $1;

-- name: delete_webhook
-- Its deliveries are gone already.
delete from webhooks where id = $1 returning id;

-- name: test_webhook
-- An event of its own, for this webhook whatever it wants.
insert into webhook_deliveries (webhook_id, user_id, type, body)
select
    id, user_id, 'webhook_test',
    jsonb_build_object(
        'type', 'webhook_test',
        'timestamp', to_char(now() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'data', jsonb_build_object('webhook_id', id, 'user_id', user_id, 'message', 'This is a test of your webhook.')
    )::text
from webhooks
where id = $1 and disabled_reason is null
returning *, '{}'::webhook_attempts[] as attempts;

-- name: list_deliveries
-- A page of one webhook's and how many there are, each with its latest attempts.
select counted.total, page.*
from (
    select count(*) as total from webhook_deliveries where webhook_id = $1 and status = any($2::text[])
) counted
left join lateral (
    select d.*, array(
        select a from webhook_attempts a where a.delivery_id = d.id order by a.number desc limit $3
    ) as attempts
    from webhook_deliveries d
    where webhook_id = $1 and status = any($2::text[])
    order by created_at desc, id desc
    limit $4 offset $5
) page on true
order by page.created_at desc, page.id desc;

-- name: get_delivery
-- One of one webhook's.
select d.*, array(
    select a from webhook_attempts a where a.delivery_id = d.id order by a.number desc limit $3
) as attempts
from webhook_deliveries d
where webhook_id = $1 and id = $2;

-- name: redeliver
-- Due now, with all its attempts before it again. One that is under way is left alone.
update webhook_deliveries set status = 'pending', failures = 0, next_attempt_at = now(), finished_at = null
where webhook_id = $1 and id = $2 and status <> 'sending';

-- name: claim_deliveries
-- Up to $3 that are due, for this process to send until $6 from now; then their sender is taken for dead. Webhooks take
-- turns: they stand in a ring, and a claim goes on at $1, where the last one ended. `turn` walks the index from one that has
-- something waiting to the next, up to $2 of them; `due` takes at most $4 of each, of one that fails only one, and none of
-- those that this process sends to already ($5). So a webhook that is slow or has thousands waiting delays no other.
-- Always says how far it went, if anything waits at all.
with recursive turn as (
    (
        select webhook_id, 1 as nth from webhook_deliveries
        where status in ('pending', 'sending') and webhook_id >= $1
        order by webhook_id limit 1
    )
    union all
    select n.webhook_id, t.nth + 1
    from turn t
    cross join lateral (
        select webhook_id from webhook_deliveries
        where status in ('pending', 'sending') and webhook_id > t.webhook_id
        order by webhook_id limit 1
    ) n
    where t.nth < $2
), due as (
    select d.id, w.url, w.secret, case when w.old_secret_until > now() then w.old_secret end as old_secret
    from turn t
    join webhooks w on w.id = t.webhook_id
    cross join lateral (
        select id from webhook_deliveries
        where webhook_id = w.id and status in ('pending', 'sending') and next_attempt_at <= clock_timestamp()
        order by next_attempt_at
        limit case when w.failing_since is null then $4 else 1 end
        for update skip locked
    ) d
    where w.disabled_reason is null and w.id <> all($5::uuid[])
    order by t.nth
    limit $3
), claimed as (
    update webhook_deliveries d set
        status = 'sending', attempt_count = attempt_count + 1, next_attempt_at = clock_timestamp() + $6::interval
    from due
    where d.id = due.id
    returning d.id, d.webhook_id, d.user_id, d.type, d.body, d.attempt_count, d.failures, due.url, due.secret, due.old_secret
), attempt as (
    insert into webhook_attempts (delivery_id, number, user_id) select id, attempt_count, user_id from claimed
)
select walked.webhook_id as walked_to, walked.nth as walked, c.*
from (select webhook_id, nth from turn order by nth desc limit 1) walked
left join claimed c on true;

-- name: finish_attempt
-- What came of it. An attempt that was taken for dead is told late, but told.
update webhook_attempts set duration_ms = $3, http_status = $4, error = $5, response = $6
where delivery_id = $1 and number = $2;

-- name: finish_delivery
-- Delivered ($3), to be tried again after $4, or failed where that is null. Nothing where another sender has it by now.
update webhook_deliveries set
    status = case when $3 then 'delivered' when $4::interval is null then 'failed' else 'pending' end,
    failures = case when $3 then failures else failures + 1 end,
    next_attempt_at = case when not $3 then clock_timestamp() + $4 end,
    finished_at = case when $3 or $4 is null then clock_timestamp() end
where id = $1 and attempt_count = $2 and status = 'sending';

-- name: webhook_works
-- Written only where it changes something.
update webhooks set failing_since = null where id = $1 and failing_since is not null;

-- name: webhook_fails
-- Since when, and whether that is too long ($3), or its receiver wants no more ($2). Written only where it changes something.
update webhooks set
    failing_since = coalesce(failing_since, now()),
    disabled_reason = case when $2 then 'gone' when failing_since < now() - $3::interval then 'failing' end,
    updated_at = case when $2 or failing_since < now() - $3::interval then now() else updated_at end
where id = $1 and disabled_reason is null and ($2 or failing_since is null or failing_since < now() - $3::interval)
returning id, disabled_reason;

-- name: notify_disabled
-- The owner's other webhooks are sent it too. Not its URL, which may have a password of theirs in it.
insert into lora_notifications (user_id, type, title, message, priority, metadata)
select
    user_id, 'webhook_disabled', 'Webhook Disabled',
    format(
        'Your webhook %s was disabled: %s. Enable it again once its receiver works',
        coalesce('"' || nullif(description, '') || '"', id::text),
        case disabled_reason when 'gone' then 'its receiver answered 410' else 'every attempt has failed for days' end
    ),
    'high', jsonb_build_object('webhook_id', id)
from webhooks
where id = $1;

-- name: end_orphans
-- What waits for a webhook that was disabled or deleted while it was written down or sent.
update webhook_deliveries d set status = 'failed', finished_at = now(), next_attempt_at = null
where status in ('pending', 'sending') and next_attempt_at <= now()
and not exists (select from webhooks w where w.id = d.webhook_id and w.disabled_reason is null);

-- name: prune_deliveries
-- With their attempts, whatever became of them.
delete from webhook_deliveries
where id in (
    select id from webhook_deliveries where created_at < now() - $1::interval
    order by created_at limit $2
    for update skip locked
);

-- name: forget_old_secrets
-- Their day is over.
update webhooks set old_secret = null, old_secret_until = null where old_secret_until <= now();
