-- name: position
-- The last event before which no event can appear any more; no event is at or beyond `next`. It is not the oldest running
-- transaction: after a crash, the numbers of transactions that were rolled back are given to others.
select
    coalesce(e.xid::text::bigint, 0) as xid, coalesce(e.seq, 0) as seq,
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint as next, now() as at
from (select pg_snapshot_xmin(pg_current_snapshot()) as safe) s
left join lateral (
    select xid, seq from job_events where xid < s.safe order by xid desc, seq desc limit 1
) e on true;

-- name: tail_events
-- All users' events after a cursor, in the order of (xid, seq). A transaction that commits late has a number that is not
-- below the oldest one running, so reading up to that misses nothing. At most $3 events, and none after $4 bytes of log
-- lines; `full`: one of these limits ended it. `behind_seconds`: age of the oldest event that waits for an open transaction.
select
    now() as read_at, extract(epoch from clock_timestamp() - held.created_at)::double precision as behind_seconds,
    e.xid::text::bigint as xid, e.seq, e.job_id, e.user_id, e.revision, e.type, e.status, e.data, e.created_at,
    e.cumulative_weight >= $4 or e.number = $3 as full
from (select pg_snapshot_xmin(pg_current_snapshot()) as safe) s
left join lateral (
    select *, sum(weight) over (order by xid, seq) as cumulative_weight, row_number() over (order by xid, seq) as number
    from (
        select *, log_bytes as weight from job_events
        where (xid, seq) > ($1::text::xid8, $2::bigint) and xid < s.safe
        order by xid, seq
        limit $3
    ) next
) e on e.cumulative_weight - e.weight < $4
left join lateral (select created_at from job_events where xid >= s.safe order by xid, seq limit 1) held on true
order by e.xid, e.seq;

-- name: events_between
-- The caller's events after one cursor and up to another, of one job or of all, with the limits of tail_events.
select
    xid::text::bigint as xid, seq, job_id, user_id, revision, type, status, data, created_at,
    cumulative_weight >= $7 or number = $6 as full
from (
    select *, sum(weight) over (order by xid, seq) as cumulative_weight, row_number() over (order by xid, seq) as number
    from (
        select *, log_bytes as weight from job_events
        where user_id = (select caller_id())
        and (xid, seq) > ($1::text::xid8, $2::bigint) and (xid, seq) <= ($3::text::xid8, $4::bigint)
        and ($5::uuid is null or job_id = $5)
        order by xid, seq
        limit $6
    ) next
) e
where cumulative_weight - weight < $7
order by e.xid, e.seq;

-- name: has_events_after
-- Whether a job has an event after a cursor.
select exists (
    select from job_events where job_id = $1 and (xid, seq) > ($2::text::xid8, $3::bigint)
);

-- name: list_events
-- A page of a job's events and their number in all. Log lines may exceed the size of a message: past $4 bytes of lines, newest
-- event first, an event has a line that says how many it left out, and a shorter page shows them.
select
    counted.total, page.xid, page.seq, page.job_id, page.user_id, page.revision, page.type, page.status, page.created_at,
    case
        when page.log_bytes > 0 and sum(page.log_bytes) over (order by page.revision desc) > $4
        then jsonb_set(page.data, '{log_lines}', jsonb_build_array(format(
            '(%s lines are too long for this page; a page of fewer events has room for them)',
            jsonb_array_length(page.data -> 'log_lines')
        )))
        else page.data
    end as data
from (select count(*) as total from job_events where job_id = $1) counted
left join lateral (
    select xid::text::bigint as xid, seq, job_id, user_id, revision, type, status, data, log_bytes, created_at
    from job_events
    where job_id = $1
    order by revision desc
    limit $2 offset $3
) page on true
order by page.revision desc;

-- name: list_metrics
-- A job's metrics by step. Each metric with more than $2 values is thinned out: to its first value, its last one, and the
-- smallest and largest of equal parts in between. So no spike and no rare metric is lost.
with point as (
    select step, epoch, values, created_at, count(*) over () as total from job_metrics where job_id = $1
), value as (
    select
        p.step, v.name, v.value,
        row_number() over (partition by v.name order by p.step) - 1 as index, count(*) over (partition by v.name) as n
    from point p
    cross join lateral (select key as name, value::text::double precision as value from jsonb_each(p.values)) v
), part as (
    select *, case when n > $2 then index * greatest(1, ($2 - 2) / 2) / n else index end as part from value
), ranked as (
    select
        *, row_number() over (partition by name, part order by value, step) as from_below,
        row_number() over (partition by name, part order by value desc, step) as from_above
    from part
), thinned as (
    select step, jsonb_object_agg(name, value) as values
    from ranked
    where n <= $2 or index in (0, n - 1) or ($2 >= 4 and (from_below = 1 or from_above = 1))
    group by step
)
select p.step, p.epoch, t.values, p.created_at, p.total
from thinned t join point p on p.step = t.step
order by p.step;

-- name: prune_events
-- Deletes up to $2 reports of progress older than $1; events that changed a status stay.
delete from job_events
where (xid, seq) in (
    select xid, seq from job_events
    where type = 'progress' and created_at < now() - $1::interval
    limit $2
);

-- name: job_snapshot
-- A job with `visible`, the transactions that this snapshot includes, and `latest`, the last of them with an event of the caller.
select pg_current_snapshot()::text as visible, (
    select e.xid::text::bigint from job_events e
    where e.user_id = (select caller_id()) order by e.user_id desc, e.xid desc, e.seq desc limit 1
) as latest, details.*
from job_details details where details.id = $1;

-- name: jobs_snapshot
-- The same for the caller's newest jobs; one row without a job if there is none.
select version.visible, version.latest, details.*
from (
    select pg_current_snapshot()::text as visible, (
        select e.xid::text::bigint from job_events e
        where e.user_id = (select caller_id()) order by e.user_id desc, e.xid desc, e.seq desc limit 1
    ) as latest
) version
left join job_details details on details.id = any(array(
    select id from lora_training_jobs where deleted_at is null order by created_at desc, id desc limit $1
))
order by details.created_at desc, details.id desc;
