-- Token lengths of datasets, quotes, and what a job keeps of the forecast that it was created with.

-- `[[most tokens of a sample, samples], …]`, shortest first, only the bins that have some; null where nobody counted.
alter table lora_datasets
    add column token_histogram jsonb;

create table lora_quotes (
    id uuid not null default gen_random_uuid(),
    user_id uuid not null,
    dataset_id uuid not null,
    -- Configuration with everything filled in, dataset and GPU price: what a later request is compared with.
    terms jsonb not null,
    configuration_digest bytea not null,
    dataset_revision text not null,
    catalogue_version text not null,
    cost_p50 numeric not null,
    cost_p90 numeric,
    -- The request and what was answered, as the contract's messages: shown again as they were, never computed again.
    request bytea not null,
    answer bytea not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    constraint lora_quotes_pkey primary key (id),
    constraint lora_quotes_dataset_fkey foreign key (dataset_id, user_id) references lora_datasets (id, user_id),
    constraint lora_quotes_money_check check (cost_p50 >= 0 and cost_p90 >= cost_p50),
    constraint lora_quotes_time_check check (expires_at > created_at)
);
-- What counts against a person's limit, and what is swept when it is over.
create index lora_quotes_open_idx on lora_quotes (user_id, expires_at);
create index lora_quotes_dataset_idx on lora_quotes (dataset_id);

alter table lora_training_jobs
    add column base_model text,
    add column training jsonb,
    add column provider text,
    add column allow_oom_risk boolean not null default false,
    -- The quote may be swept; what it said stays in `estimate`.
    add column quote_id uuid,
    -- The Estimator's answer when the job was created, as the contract's message.
    add column estimate bytea,
    -- What finished jobs teach: under which key, what was said, and the correction it had.
    add column model_family text,
    add column stack text,
    add column forecast_p10_seconds double precision,
    add column forecast_seconds double precision,
    add column forecast_p90_seconds double precision,
    add column forecast_overhead_seconds double precision,
    add column forecast_correction double precision,
    add constraint lora_training_jobs_forecast_check check (
        (model_family is null) = (forecast_seconds is null) and (model_family is null) = (base_model is null)
        and forecast_p10_seconds > 0 and forecast_seconds >= forecast_p10_seconds and forecast_p90_seconds >= forecast_seconds
        and forecast_overhead_seconds >= 0 and forecast_correction > 0
    );
-- As 002 has it, with what is new at the end.
create or replace view job_details with (security_invoker = true) as
select
    j.id, j.user_id, j.dataset_id, j.preset_id, j.hyperparameters, j.gpu_config, j.gpu_type, j.gpu_count, j.status,
    j.current_stage, j.progress, j.current_epoch, j.total_epochs, j.current_step, j.total_steps, j.current_metrics,
    j.queued_at, j.started_at, j.completed_at, j.estimated_total_cost, j.client_estimated_cost, j.hourly_rate,
    live_cost(
        j.current_cost, j.spent_cost, j.hourly_rate, j.lease_started_at, j.lease_expires_at, j.max_cost_usd
    ) as current_cost,
    j.final_cost, j.error_message, j.retry_count, j.external_job_id, j.artifact_id, j.created_at, j.updated_at,
    j.request_id, j.request_digest, j.priority, j.max_cost_usd, j.max_duration_seconds, j.status_reason, j.revision,
    j.attempt, j.max_attempts, j.retried_from, j.artifact_uri, j.trainer,
    live_seconds(j.billed_seconds, j.spent_seconds, j.lease_started_at, j.lease_expires_at) as billed_seconds,
    case
        when j.status = 'running' and j.progress >= 1 and j.current_step > j.running_from_step
        then extract(epoch from j.updated_at - j.running_since)::double precision
            * (j.total_steps - j.current_step) / (j.current_step - j.running_from_step)
    end as seconds_left,
    case
        when j.status = 'queued' then (
            select count(*) from lora_training_jobs a
            where a.status = 'queued' and a.gpu_type = j.gpu_type and a.user_id = j.user_id
            and (a.place, a.id) < (j.place, j.id)
        )
    end as own_ahead,
    d.name as dataset_name, d.format as dataset_format, d.total_training_pairs as dataset_pairs,
    j.base_model, j.training, j.provider, j.allow_oom_risk, j.estimate
from lora_training_jobs j join lora_datasets d on d.id = j.dataset_id;
create index lora_training_jobs_forecast_idx on lora_training_jobs (user_id, completed_at desc)
where status = 'completed' and model_family is not null;
create index lora_training_jobs_accuracy_idx on lora_training_jobs (completed_at desc)
where status = 'completed' and model_family is not null;

alter table lora_quotes enable row level security;
alter table lora_quotes force row level security;
create policy own_quotes on lora_quotes to pipeline_user
using (user_id = (select caller_id())) with check (user_id = (select caller_id()));
grant select, insert, delete on lora_quotes to pipeline_user;

grant select (base_model, training, allow_oom_risk) on lora_training_jobs to pipeline_worker;

-- Figures over all users come from these columns alone, and the statements that read them want five users at least.
create policy finished_forecasts on lora_training_jobs for select to pipeline_service
using (status = 'completed' and model_family is not null);
grant select (
    user_id, status, gpu_config, model_family, stack, started_at, completed_at, retry_count,
    forecast_p10_seconds, forecast_seconds, forecast_p90_seconds, forecast_overhead_seconds, forecast_correction
) on lora_training_jobs to pipeline_service;
