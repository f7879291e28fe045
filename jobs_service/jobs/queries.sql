-- name: create_job
-- Migration 007 has the function: one round trip in all.
select * from create_job(
    caller => $1, dataset => $2, preset_id => $3, hyperparameters => $4, gpu_config => $5, total_epochs => $6,
    total_steps => $7, estimated_total_cost => $8, client_estimated_cost => $9, hourly_rate => $10,
    request_id => $11, request_digest => $12, max_cost_usd => $13, max_duration_seconds => $14, priority => $15,
    retried_from => $16, max_attempts => $17, most => $18, base_model => $19, training => $20, provider => $21,
    allow_oom_risk => $22, quote_id => $23, estimate => $24, model_family => $25, stack => $26,
    forecast_p10_seconds => $27, forecast_seconds => $28, forecast_p90_seconds => $29,
    forecast_overhead_seconds => $30, forecast_correction => $31, forecast_slopes => $32, forecast_model => $33
);

-- name: find_request
-- The job that an idempotency key made before, whatever became of its dataset since.
select * from job_details where request_id = $1;

-- name: get_job
-- Row-level security makes another user's job as absent as one that never was. `seen`: which transactions it shows, and
-- `latest` the last of them that left an event of the caller's.
select *, pg_current_snapshot()::text as seen, (
    select e.xid::text::bigint from job_events e
    where e.user_id = (select caller_id()) order by e.user_id desc, e.xid desc, e.seq desc limit 1
) as latest
from job_details where id = $1;

-- name: list_jobs
-- As create_job. Row-level security adds the owner, which leads the index.
select * from list_jobs($1, $2, $3, $4);

-- name: newest_jobs
-- The first page without its total, with `seen` and `latest` as in get_job; one row without a job where there is none.
select picture.seen, picture.latest, details.*
from (
    select pg_current_snapshot()::text as seen, (
        select e.xid::text::bigint from job_events e
        where e.user_id = (select caller_id()) order by e.user_id desc, e.xid desc, e.seq desc limit 1
    ) as latest
) picture
left join (
    (select id from lora_training_jobs order by created_at desc, id desc limit $1) page
    join job_details details on details.id = page.id
) on true
order by details.created_at desc, details.id desc;

-- name: readiness
-- Whether jobs may train on a dataset of the caller's.
select status, training_ready from lora_datasets where id = $1 and deleted_at is null;
