-- name: own_finished_jobs
-- Duration and peak memory of the caller's latest finished jobs beside what this version of the model forecast.
select
    model_family, gpu_config ->> 'type' as gpu_type, stack, coalesce(software, '') as software, user_id, worker_id,
    extract(epoch from completed_at - started_at)::double precision as seconds,
    forecast_seconds, forecast_overhead_seconds, forecast_correction, forecast_slopes, peak_memory_gib,
    trained_tokens / nullif(forecast_tokens, 0) as token_ratio,
    exists (select from withdrawn_workers w where w.worker_id = lora_training_jobs.worker_id) as is_withdrawn
from lora_training_jobs
where
    status = 'completed' and model_family is not null and not simulated and forecast_model = $1 and retry_count = 0 and completed_at > started_at
order by completed_at desc
limit 200;

-- name: shared_finished_jobs
-- The same of all users: an equal number of the latest jobs of each worker, and of those the latest of each user, users taking
-- turns. So the jobs of one user or worker cannot displace those of others. Runs as the Estimator's login, whose policy shows it these columns
-- of finished jobs with a forecast alone. Users and workers are counted where rows are used (see shared_corrections).
with recursive worker as (
    (
        select worker_id, 1 as number from lora_training_jobs
        where status = 'completed' and model_family is not null and not simulated and worker_id is not null
        order by worker_id limit 1
    )
    union all
    select n.worker_id, w.number + 1 from worker w cross join lateral (
        select worker_id from lora_training_jobs
        where status = 'completed' and model_family is not null and not simulated and worker_id > w.worker_id
        order by worker_id limit 1
    ) n
    where w.number < 500
), latest as (
    select
        j.*,
        row_number() over (
            partition by model_family, gpu_type, stack, software, j.worker_id, user_id order by completed_at desc
        ) as turn
    from worker w cross join lateral (
        select
            user_id, worker_id, model_family, gpu_config ->> 'type' as gpu_type, stack, coalesce(software, '') as software,
            completed_at,
            extract(epoch from completed_at - started_at)::double precision as seconds,
            forecast_seconds, forecast_overhead_seconds, forecast_correction, forecast_slopes, peak_memory_gib,
            trained_tokens / nullif(forecast_tokens, 0) as token_ratio
        from lora_training_jobs
        where
            status = 'completed' and model_family is not null and not simulated and worker_id = w.worker_id
            and forecast_model = $1 and retry_count = 0 and completed_at > started_at
        order by completed_at desc
        limit 5000 / (select count(*) from worker)
    ) j
), ranked as (
    select
        *,
        row_number() over (
            partition by model_family, gpu_type, stack, software, worker_id order by turn, completed_at desc
        ) as worker_rank
    from latest
    where turn <= $2
)
select
    user_id, worker_id, model_family, gpu_type, stack, software, seconds, forecast_seconds, forecast_overhead_seconds,
    forecast_correction, forecast_slopes, peak_memory_gib, token_ratio, completed_at,
    exists (select from withdrawn_workers w where w.worker_id = ranked.worker_id) as is_withdrawn
from ranked
where worker_rank <= $3
-- Always in one order: corrections are cached by it.
order by model_family, gpu_type, stack, turn, completed_at desc, user_id;

-- name: accuracy
-- Compares forecasts with the durations of the latest jobs, in all (month null) and by month. No row comes from fewer users than $1.
-- What it reads is bounded, in the order of lora_training_jobs_accuracy_idx.
select
    to_char(month, 'YYYY-MM') as month, count(*) as jobs,
    avg((seconds between forecast_p10_seconds and forecast_p90_seconds)::integer)::double precision as inside,
    percentile_cont(0.5) within group (order by abs(forecast_seconds - seconds) / seconds) as median_error
from (
    select
        user_id, date_trunc('month', completed_at at time zone 'utc') as month,
        extract(epoch from completed_at - started_at)::double precision as seconds,
        forecast_p10_seconds, forecast_seconds, forecast_p90_seconds
    from lora_training_jobs
    where status = 'completed' and model_family is not null and not simulated and retry_count = 0 and completed_at > started_at
    order by completed_at desc
    limit 50000
) finished
group by grouping sets ((), (month))
having count(distinct user_id) >= $1
order by month desc nulls first
limit 25;

-- name: withdraw_worker
-- Excludes a worker's jobs from corrections, until it is restored.
insert into withdrawn_workers (worker_id, reason) values ($1, $2)
on conflict (worker_id) do update set reason = excluded.reason, withdrawn_at = now();

-- name: restore_worker
-- Ends the exclusion of a worker's jobs.
delete from withdrawn_workers where worker_id = $1;
