-- A job as its owner sees it: its costs up to now, its dataset in short, and how many of the owner's jobs of the same GPU type
-- wait before it. Deleted jobs are left out.
drop function if exists create_job, list_jobs;
drop view if exists listed_jobs, job_details, job_columns, own_queue;

-- The caller's queued jobs. The second condition follows from the first, and lets PostgreSQL use the index of unfinished jobs.
create view own_queue with (security_invoker = true) as
select id, row_number() over (partition by user_id, gpu_type order by queue_key, id) - 1 as own_jobs_ahead
from lora_training_jobs
where status = 'queued' and completed_at is null;

-- The columns of a job that the service reads. From one table, so that a page is cut in an index.
create view job_columns with (security_invoker = true) as
select
    j.id, j.user_id, j.dataset_id, j.name, j.labels, j.preset_id, j.hyperparameters, j.gpu_config, j.base_model, j.training,
    j.provider, j.allow_oom_risk, j.priority, j.max_cost_usd, j.max_duration_seconds, j.client_estimated_cost,
    j.idempotency_key, j.request_digest, j.retried_from, j.estimated_total_cost, j.estimate, j.status, j.status_reason,
    j.error_message, j.revision, j.attempt, j.max_attempts, j.retry_count, j.current_stage, j.progress, j.current_epoch,
    j.total_epochs, j.current_step, j.total_steps, j.current_metrics, j.reforecast, j.trainer, j.simulated, j.final_cost,
    j.external_job_id, j.artifact_id, j.artifact_uri, j.artifact_size, j.result_step, j.measurements, j.queued_at, j.started_at, j.completed_at, j.created_at, j.updated_at,
    case when j.status = 'initializing' and j.current_stage = 'waiting' then j.waiting_message end as waiting_message,
    live_cost(
        j.current_cost, j.spent_cost, j.hourly_rate, j.billed_from, j.lease_expires_at, j.max_cost_usd
    ) as current_cost,
    live_seconds(j.billed_seconds, j.spent_seconds, j.billed_from, j.lease_expires_at) as billed_seconds,
    case
        when j.status = 'running' and j.progress >= 1 and j.current_step > j.measured_from_step and j.updated_at > j.measured_since
        then extract(epoch from j.updated_at - j.measured_since)::double precision
            * (j.total_steps - j.current_step) / (j.current_step - j.measured_from_step)
    end as seconds_left
from lora_training_jobs j
where j.deleted_at is null;

create view job_details with (security_invoker = true) as
select
    c.*, d.name as dataset_name, d.format as dataset_format, d.total_training_pairs as dataset_pairs,
    d.deleted_at is not null as dataset_deleted, q.own_jobs_ahead
from job_columns c join lora_datasets d on d.id = c.dataset_id left join own_queue q on q.id = c.id;
grant select on own_queue, job_columns, job_details to pipeline_user;
