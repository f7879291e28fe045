-- Free and busy GPUs of each type, and the jobs for them. Finished jobs are not read. Offers are those of the last minute, less
-- what their trainers have leased since. A job has been waiting since it was created, or since its last attempt ended.
drop view if exists gpu_capacity;
create view gpu_capacity with (security_invoker = true) as
with leased as (
    select
        gpu_type, gpu_count, worker_id, coalesce(trainer, '') as trainer, lease_started_at,
        current_stage = 'waiting' and billed_from is null as is_starting
    from lora_training_jobs
    where status in ('initializing', 'running')
), offered as (
    select o.gpu_type, greatest(0, o.gpu_count - coalesce(sum(l.gpu_count), 0)) as gpus
    from live_offers o
    left join leased l
        on l.worker_id = o.worker_id and l.trainer = o.trainer and l.gpu_type = o.gpu_type and l.lease_started_at >= o.seen_at
    group by o.worker_id, o.trainer, o.gpu_type, o.gpu_count
), open_work as (
    select gpu_type, gpus as free_gpus, 0 as busy_gpus, 0 as running, 0 as starting, 0 as queued, null::timestamptz as since
    from offered
    union all
    select
        gpu_type, 0, case when is_starting then 0 else gpu_count end, (not is_starting)::integer, is_starting::integer, 0, null
    from leased
    union all
    select gpu_type, 0, 0, 0, 0, 1, case when lease_epoch = 0 then queued_at else updated_at end
    from lora_training_jobs
    where status = 'queued'
)
select
    gpu_type, sum(free_gpus)::bigint as free_gpus, sum(busy_gpus) as busy_gpus, sum(running) as running_jobs,
    sum(starting) as starting_jobs, sum(queued) as queued_jobs,
    coalesce(extract(epoch from now() - min(since)), 0)::double precision as longest_wait_seconds
from open_work
group by gpu_type;
grant select on gpu_capacity to pipeline_system;
