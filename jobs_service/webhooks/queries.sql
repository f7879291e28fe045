-- name: lock_user
-- Serializes a user's creations, so that two at once cannot exceed the limit.
select pg_advisory_xact_lock(hashtextextended('webhooks of ' || caller_id(), 0));

-- name: count_use
-- Counts one use against the caller's hourly limit $1. Returns no row if the limit is reached.
insert into webhook_uses as previous (user_id) values ((select caller_id()))
on conflict on constraint webhook_uses_pkey do update set
    uses = case when previous.since > now() - interval '1 hour' then previous.uses + 1 else 1 end,
    since = case when previous.since > now() - interval '1 hour' then previous.since else now() end
where previous.uses < $1 or previous.since <= now() - interval '1 hour'
returning uses;

-- name: count_webhooks
-- Number of the caller's webhooks.
select count(*) from webhooks where user_id = (select caller_id());

-- name: find_webhook
-- The webhook that was created with an idempotency key.
select id, request_digest from webhooks where idempotency_key = $1;

-- name: create_webhook
-- Returns no row if the caller has $5 webhooks already. Secrets are written and never read here.
insert into webhooks (user_id, url, description, event_types, secret, idempotency_key, request_digest)
select (select caller_id()), $1, $2, $3::text[], $4, $6, $7
where (select count(*) from webhooks where user_id = (select caller_id())) < $5
returning id;

-- name: get_webhooks
-- The caller's webhook $1; null: all of them. A user has few.
select
    id, user_id, url, description, event_types, disabled_reason, failing_since, paused_until, old_secret_until,
    created_at, updated_at
from webhooks
where user_id = (select caller_id()) and ($1::uuid is null or id = $1)
order by created_at, id;

-- name: update_webhook
-- A new URL, or enabling it again, clears failures and pauses.
update webhooks set
    url = $2, description = $3, event_types = $4::text[],
    disabled_reason = case when not $5::boolean then coalesce(disabled_reason, 'by_owner') end,
    failing_since = case when url = $2 and not ($5 and disabled_reason is not null) then failing_since end,
    paused_until = case when url = $2 and not ($5 and disabled_reason is not null) then paused_until end,
    updated_at = now()
where id = $1;

-- name: rotate_secret
-- A trigger keeps the previous secret for a day.
update webhooks set secret = $2, updated_at = now() where id = $1;

-- name: end_deliveries
-- Fails the pending deliveries of a webhook that its owner disables.
update webhook_deliveries set status = 'failed', finished_at = now(), next_attempt_at = null
where webhook_id = $1 and status = 'pending';

-- name: delete_deliveries
-- Runs before delete_webhook: a sender that finishes locks rows in the same order. Attempts are deleted by cascade.
delete from webhook_deliveries where webhook_id = $1;

-- name: delete_webhook
-- Runs after delete_deliveries.
delete from webhooks where id = $1 returning id;

-- name: test_webhook
-- Inserts a test event for one webhook, whatever its event types.
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

-- name: end_pause
-- The owner asks for a delivery now, in spite of the receiver's Retry-After.
update webhooks set paused_until = null where id = $1 and paused_until is not null;

-- name: list_deliveries
-- A page of a webhook's deliveries with their total, each with its latest attempts.
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
-- One delivery of a webhook.
select d.*, array(
    select a from webhook_attempts a where a.delivery_id = d.id order by a.number desc limit $3
) as attempts
from webhook_deliveries d
where webhook_id = $1 and id = $2;

-- name: redeliver
-- Makes a delivery due now and starts its retries anew. A delivery that is being sent stays as it is.
update webhook_deliveries set status = 'pending', failures = 0, next_attempt_at = now(), finished_at = null
where webhook_id = $1 and id = $2 and status <> 'sending';
