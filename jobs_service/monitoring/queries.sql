-- name: gauges
-- Metrics of the database as a whole: (gauge, its labels, value). Finished jobs are not read.
-- `trained` is what trainers offered in the last minute or have leased; jobs that need more than that are `unserved`.
-- A delivery is overdue if it is due and its owner has no request under way: a slow receiver delays only its owner's deliveries.
with capacity as (
    select * from gpu_capacity order by queued_jobs + starting_jobs + running_jobs desc, gpu_type limit $1
), trained as (
    select gpu_type, max(gpus) as gpus, count(distinct (worker_id, trainer)) as trainers
    from (
        select gpu_type, worker_id, trainer, gpu_count as gpus from live_offers
        union all
        select gpu_type, worker_id, coalesce(trainer, ''), gpu_count from lora_training_jobs where status in ('initializing', 'running')
    ) offered
    group by gpu_type
    order by trainers desc
    limit $1
), queued as (
    select j.gpu_type, count(*) as jobs, count(*) filter (where j.gpu_count > coalesce(t.gpus, 0)) as unserved
    from lora_training_jobs j left join trained t on t.gpu_type = j.gpu_type
    where j.status = 'queued'
    group by j.gpu_type
    order by jobs desc
    limit $1
), leased as (
    select status, gpu_type, count(*) as jobs
    from lora_training_jobs
    where status in ('initializing', 'running')
    group by status, gpu_type
    order by jobs desc
    limit $1
), outbox as (
    select d.user_id, d.status, d.next_attempt_at, w.paused_until
    from webhook_deliveries d left join webhooks w on w.id = d.webhook_id
    where d.status in ('pending', 'sending')
)
select 'trainers' as gauge, array[gpu_type] as labels, trainers::double precision as value from trained
union all
select 'free', array[gpu_type], free_gpus from capacity
union all
select 'busy', array[gpu_type], busy_gpus from capacity
union all
select 'starting', array[gpu_type], starting_jobs from capacity
union all
select 'jobs', array[gpu_type, 'queued'], jobs from queued
union all
select 'jobs', array[gpu_type, status], jobs from leased
union all
select 'unserved', array[gpu_type], unserved from queued
union all
select 'waiting', array[gpu_type], longest_wait_seconds from capacity where queued_jobs > 0
union all
select 'outbox', array[]::text[], count(*) from outbox
union all
select 'overdue', array[]::text[], coalesce(extract(epoch from now() - min(next_attempt_at)), 0)
from outbox o
where next_attempt_at <= now() and (paused_until is null or paused_until <= now()) and not exists (
    select from outbox s where s.user_id = o.user_id and s.status = 'sending' and s.next_attempt_at > now()
)
union all
-- The oldest event that watches cannot have yet, because an older transaction is still open.
select 'held_back', array[]::text[], coalesce(extract(epoch from now() - (
    select created_at from job_events
    where xid >= pg_snapshot_xmin(pg_current_snapshot()) order by xid, seq limit 1
)), 0)
union all
select 'size', array[]::text[], pg_database_size(current_database())
union all
select 'connections', array[]::text[], numbackends from pg_stat_database where datname = current_database()
union all
select 'max_connections', array[]::text[], current_setting('max_connections')::integer;
