-- name: own_finished_jobs
-- What the caller's latest finished jobs took, against what was said of them by this version of the model.
select
    model_family, gpu_config ->> 'type' as gpu_type, stack,
    extract(epoch from completed_at - started_at)::double precision as seconds,
    forecast_seconds, forecast_overhead_seconds, forecast_correction, forecast_slopes, peak_memory_gib
from lora_training_jobs
where status = 'completed' and model_family is not null and forecast_model = $1 and retry_count = 0 and completed_at > started_at
order by completed_at desc
limit 200;

-- name: shared_finished_jobs
-- The same of everybody, only where five users or more have finished such jobs. Runs as the service's login, whose policy
-- shows it finished jobs with a forecast and these columns alone.
with latest as (
    select
        user_id, model_family, gpu_config ->> 'type' as gpu_type, stack, completed_at,
        extract(epoch from completed_at - started_at)::double precision as seconds,
        forecast_seconds, forecast_overhead_seconds, forecast_correction, forecast_slopes, peak_memory_gib
    from lora_training_jobs
    where status = 'completed' and model_family is not null and forecast_model = $2 and retry_count = 0 and completed_at > started_at
    order by completed_at desc
    limit 5000
), ranked as (
    select
        *,
        dense_rank() over (kind order by user_id) as user_place,
        row_number() over (kind order by completed_at desc) as place
    from latest
    window kind as (partition by model_family, gpu_type, stack)
), counted as (
    select *, max(user_place) over (partition by model_family, gpu_type, stack) as users from ranked
)
select
    model_family, gpu_type, stack, seconds, forecast_seconds, forecast_overhead_seconds, forecast_correction, forecast_slopes, peak_memory_gib
from counted
where users >= $1 and place <= 50
-- In one order, always: corrections are remembered by it.
order by model_family, gpu_type, stack, place;

-- name: accuracy
-- How forecasts compare with what the latest jobs took, in all (month null) and by month. No row comes from fewer users than $1.
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
    where status = 'completed' and model_family is not null and retry_count = 0 and completed_at > started_at
    order by completed_at desc
    limit 50000
) finished
group by grouping sets ((), (month))
having count(distinct user_id) >= $1
order by month desc nulls first
limit 25;
