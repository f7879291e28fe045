-- name: claim_deliveries
-- Claims up to $3 deliveries that are due, for this process until $6 from now; after that the sender counts as dead.
-- `turn` walks the index from $1 on, from one webhook with open deliveries to the next, up to $2 webhooks: a webhook with
-- thousands of deliveries costs no more than one with few. `busy` lists what this process sends already ($7 to $9 are its
-- columns). A user has at most $4 requests at once, and $5 to unresponsive webhooks; a webhook has at most $10 if it is
-- responsive and one if not; all unresponsive webhooks together get at most $11 new ones. Users take turns; among the
-- deliveries of a user the one that is due longest comes first.
-- Returns how far the walk went even if nothing was claimed.
with recursive turn as (
    (
        select webhook_id, 1 as walked from webhook_deliveries
        where status in ('pending', 'sending') and webhook_id >= $1
        order by webhook_id limit 1
    )
    union all
    select n.webhook_id, t.walked + 1
    from turn t
    cross join lateral (
        select webhook_id from webhook_deliveries
        where status in ('pending', 'sending') and webhook_id > t.webhook_id
        order by webhook_id limit 1
    ) n
    where t.walked < $2
), busy as (
    select * from unnest($7::uuid[], $8::uuid[], $9::boolean[]) as b (webhook_id, user_id, responsive)
), due as (
    select d.id, d.next_attempt_at, w.id as webhook_id, w.user_id, w.responsive
    from turn t
    join webhooks w on w.id = t.webhook_id
    cross join lateral (
        select id, next_attempt_at from webhook_deliveries
        where webhook_id = w.id and status in ('pending', 'sending') and next_attempt_at <= clock_timestamp()
        order by next_attempt_at
        limit greatest(
            case when w.responsive then $10::integer else 1 end
            - (select count(*) from busy b where b.webhook_id = w.id), 0
        )
    ) d
    where w.disabled_reason is null and (w.paused_until is null or w.paused_until <= clock_timestamp())
), share as (
    select due.*, row_number() over (partition by user_id, responsive order by next_attempt_at) + (
        select count(*) from busy b where b.user_id = due.user_id and (due.responsive or not b.responsive)
    ) as user_rank
    from due
), fair as (
    select *, row_number() over (partition by responsive order by user_rank, next_attempt_at) as rank
    from share
    where user_rank <= case when responsive then $4::integer else $5::integer end
), chosen as (
    select d.id, w.url, w.secret, w.responsive, case when w.old_secret_until > now() then w.old_secret end as old_secret
    from (
        select id, webhook_id from fair where responsive or rank <= $11::integer order by user_rank, next_attempt_at limit $3
    ) f
    join webhooks w on w.id = f.webhook_id
    join webhook_deliveries d on d.id = f.id
    -- Another process may have claimed it since. Open deliveries are found by id here: this condition is written so that the
    -- planner cannot take the index of all open deliveries instead.
    where d.status <> all(array['delivered', 'failed']) and d.next_attempt_at <= clock_timestamp()
    for update of d skip locked
), claimed as (
    update webhook_deliveries d set
        status = 'sending', attempt_count = attempt_count + 1, next_attempt_at = clock_timestamp() + $6::interval
    from chosen
    where d.id = chosen.id
    returning
        d.id, d.webhook_id, d.user_id, d.type, d.body, d.attempt_count, d.failures,
        chosen.url, chosen.secret, chosen.old_secret, chosen.responsive
), attempt as (
    insert into webhook_attempts (delivery_id, number, user_id) select id, attempt_count, user_id from claimed
)
select last.webhook_id as walked_to, last.walked, c.*
from (select webhook_id, walked from turn order by walked desc limit 1) last
left join claimed c on true;

-- name: finish_attempt
-- Records the outcome of an attempt, also of one that counted as dead meanwhile.
update webhook_attempts set duration_ms = $3, http_status = $4, error = $5, response = $6
where delivery_id = $1 and number = $2;

-- name: finish_delivery
-- Delivered if $3, else pending for another $4, else failed. Changes nothing if another sender has claimed the delivery since.
update webhook_deliveries set
    status = case when $3 then 'delivered' when $4::interval is null then 'failed' else 'pending' end,
    failures = case when $3 then failures else failures + 1 end,
    next_attempt_at = case when not $3 then clock_timestamp() + $4 end,
    finished_at = case when $3 or $4 is null then clock_timestamp() end
where id = $1 and attempt_count = $2 and status = 'sending';

-- name: webhook_works
-- Records a delivered request. $2: whether the response was fast. Writes only if something changes.
update webhooks set failing_since = null, paused_until = null, responsive = $2
where id = $1 and (failing_since is not null or paused_until is not null or responsive <> $2);

-- name: webhook_fails
-- Records a failed attempt. $2: its receiver responded with 410, $3: after how long a failing webhook is disabled, $4: the
-- receiver's Retry-After, null for none. Writes only if something changes.
update webhooks set
    responsive = false,
    failing_since = coalesce(failing_since, now()),
    paused_until = greatest(paused_until, now() + $4::interval),
    disabled_reason = case when $2 then 'gone' when failing_since < now() - $3::interval then 'failing' end,
    updated_at = case when $2 or failing_since < now() - $3::interval then now() else updated_at end
where id = $1 and disabled_reason is null
and ($2 or $4::interval is not null or responsive or failing_since is null or failing_since < now() - $3::interval)
returning id, disabled_reason;

-- name: end_deliveries
-- Fails the pending deliveries of a webhook that was disabled.
update webhook_deliveries set status = 'failed', finished_at = now(), next_attempt_at = null
where webhook_id = $1 and status = 'pending';

-- name: notify_disabled
-- Sent to the owner's other webhooks too. It omits the URL, which may contain a password.
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

-- name: fail_orphans
-- Fails open deliveries whose webhook was disabled or deleted while they were inserted or sent.
update webhook_deliveries d set status = 'failed', finished_at = now(), next_attempt_at = null
where status in ('pending', 'sending') and next_attempt_at <= now()
and not exists (select from webhooks w where w.id = d.webhook_id and w.disabled_reason is null);

-- name: prune_deliveries
-- Deletes up to $2 deliveries older than $1, with their attempts, in whatever state.
delete from webhook_deliveries
where id in (
    select id from webhook_deliveries where created_at < now() - $1::interval
    order by created_at limit $2
    for update skip locked
);

-- name: prune_old_secrets
-- Deletes secrets that were replaced more than a day ago.
update webhooks set old_secret = null, old_secret_until = null where old_secret_until <= now();

-- name: prune_uses
-- Deletes up to $1 counters of past hours.
delete from webhook_uses
where since <= now() - interval '1 hour'
and user_id in (select user_id from webhook_uses where since <= now() - interval '1 hour' limit $1);
