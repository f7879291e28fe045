-- Training jobs: one row each, from the request to the final cost. What trainers and the sweeper may do is in queue.sql.

create table lora_training_jobs (
    id uuid not null default gen_random_uuid(),
    user_id uuid not null,
    dataset_id uuid not null,

    -- The only columns that the owner may change at any time.
    name text,
    labels text[] not null default '{}',

    -- The request.
    preset_id text not null,
    hyperparameters jsonb not null,
    gpu_config jsonb not null,
    gpu_type text generated always as (gpu_config ->> 'type') stored,
    gpu_count integer generated always as ((gpu_config ->> 'count')::integer) stored,
    base_model text,
    training jsonb,
    validation_dataset_id uuid generated always as ((training ->> 'validation_dataset_id')::uuid) stored,
    provider text,
    allow_oom_risk boolean not null default false,
    priority integer not null default 5,
    max_cost_usd numeric,
    max_duration_seconds bigint,
    client_estimated_cost numeric,
    idempotency_key uuid,
    request_digest bytea,
    retried_from uuid,
    -- What the job was created with: an access token or an API key. A label of the cost metrics.
    credential text not null default case
        when nullif(current_setting('request.jwt.claims', true), '')::jsonb ? 'api_key_id' then 'api_key' else 'token'
    end,

    -- The Estimator's response. Expired quotes are deleted; their content stays in `estimate`, the contract's message.
    estimated_total_cost numeric not null,
    hourly_rate numeric not null,
    storage_usd numeric not null default 0,
    quote_id uuid,
    estimate bytea,
    -- The forecast that a finished job is compared with, to correct later forecasts.
    model_family text,
    stack text,
    forecast_p10_seconds double precision,
    forecast_seconds double precision,
    forecast_p90_seconds double precision,
    forecast_overhead_seconds double precision,
    forecast_correction double precision,
    forecast_slopes double precision[],
    forecast_model text,
    forecast_tokens double precision,

    -- State and progress.
    status text not null default 'queued',
    status_reason text,
    error_message text,
    -- Number of the latest event. An event of each number is written in the transaction that sets it.
    revision bigint not null default 0,
    attempt integer not null default 1,
    max_attempts integer not null default 3,
    retry_count integer not null default 0,
    current_stage text not null default 'queued',
    progress double precision not null default 0,
    current_epoch integer not null default 0,
    total_epochs integer not null,
    current_step bigint not null default 0,
    total_steps bigint not null,
    current_metrics jsonb not null default '{}',
    -- When this attempt began to train; and since when and from which step its speed is measured.
    running_since timestamptz,
    measured_since timestamptz,
    measured_from_step bigint,
    -- Forecast from the speed of this attempt's steps, once enough were measured: see queue/reforecast.py.
    reforecast jsonb,
    -- Kinds of notifications about it that the owner has got, over all attempts.
    reforecast_notifications text[] not null default '{}',

    -- The trainer that has the job, or had it last, and its lease. The token stays when the lease is over.
    trainer text,
    -- Whether that trainer only simulates: forecasts learn nothing from the job then.
    simulated boolean not null default false,
    worker_id uuid,
    lease_epoch bigint not null default 0,
    lease_token uuid,
    lease_started_at timestamptz,
    lease_expires_at timestamptz,
    -- When billing of the lease began: at its first report with another stage than `waiting`. Null before.
    billed_from timestamptz,
    -- Why the trainer's scheduler has not started the job yet.
    waiting_message text,
    -- The newest checkpoint that a trainer reported. The next lease contains it.
    checkpoint_uri text,
    checkpoint_step bigint,

    -- Cost in US dollars and billed seconds of GPU time. `spent_`: of the attempts before the current one.
    current_cost numeric not null default 0,
    final_cost numeric,
    billed_seconds double precision not null default 0,
    spent_cost numeric not null default 0,
    spent_seconds double precision not null default 0,
    cost_warned boolean not null default false,

    -- Result.
    external_job_id text,
    artifact_id uuid,
    artifact_uri text,
    -- Bytes of its result's files; null where there are none to download.
    artifact_size bigint,
    -- Step of the weights in its result, where validation chose one; null: the last.
    result_step bigint,
    -- What its trainer measured: the contract's Measurements.
    measurements jsonb,
    -- Fingerprint of the software that completed it, from the measurements: forecasts learn from jobs of one software alone.
    software text,
    -- Peak memory of one GPU, GiB, as the trainer measured it: memory forecasts are corrected with it.
    peak_memory_gib double precision,
    -- Tokens that the trainer counted with the base model's own tokenizer, over all epochs.
    trained_tokens double precision,

    queued_at timestamptz not null default now(),
    started_at timestamptz,
    completed_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    -- Deleted jobs are hidden. Their costs stay, and forecasts still learn from them.
    deleted_at timestamptz,
    -- Order among its owner's jobs: by age, with one step of priority worth an hour, so that no job starves.
    queue_key timestamp generated always as (
        (queued_at at time zone 'UTC') - priority * interval '1 hour'
    ) stored,

    constraint lora_training_jobs_pkey primary key (id),
    constraint lora_training_jobs_dataset_fkey foreign key (dataset_id, user_id) references lora_datasets (id, user_id),
    constraint lora_training_jobs_validation_fkey foreign key (validation_dataset_id, user_id)
    references lora_datasets (id, user_id)
    -- Conditions that each row meets are in routines/check_job.sql.
)
-- Reports rewrite the row every few seconds. With free space on its page, that updates no index.
with (fillfactor = 85);

-- Idempotency: one job for each key of a user. Partial, so that the planner cannot use it to look up a job by its id, which
-- would read all of its owner's jobs.
create unique index lora_training_jobs_request_key on lora_training_jobs (user_id, idempotency_key) where idempotency_key is not null;
-- Begins with the owner: a user's page costs the same however many jobs others have.
create index lora_training_jobs_list_idx on lora_training_jobs (user_id, created_at desc, id desc) include (status)
where deleted_at is null;
-- What counts against a user's limit. Not `where status in …`: the planner would use it for claims in place of the queue's
-- index, and read all of a user's jobs for one of a GPU type.
create index lora_training_jobs_unfinished_idx on lora_training_jobs (user_id) where completed_at is null;
-- Finished jobs that correct forecasts: the caller's, those of each worker, and all of them, which say how good forecasts were.
create index lora_training_jobs_forecast_idx on lora_training_jobs (user_id, completed_at desc)
where status = 'completed' and model_family is not null and not simulated;
create index lora_training_jobs_lessons_idx on lora_training_jobs (worker_id, completed_at desc)
where status = 'completed' and model_family is not null and not simulated;
create index lora_training_jobs_accuracy_idx on lora_training_jobs (completed_at desc)
where status = 'completed' and model_family is not null and not simulated;

alter table lora_training_jobs enable row level security;
alter table lora_training_jobs force row level security;

create policy own_jobs on lora_training_jobs for select to pipeline_user using (user_id = (select caller_id()));
-- A function, since a policy may not read its own table.
create function owns_job(job uuid) returns boolean
language sql stable
as $$ select exists (select from lora_training_jobs where id = job) $$;
create policy new_jobs on lora_training_jobs for insert to pipeline_user
with check (user_id = (select caller_id()) and revision = 1 and (retried_from is null or owns_job(retried_from)));
create policy changed_jobs on lora_training_jobs for update to pipeline_user
using (user_id = (select caller_id())) with check (user_id = (select caller_id()));
grant select on lora_training_jobs to pipeline_user;
-- Columns that cancelling and deleting set (change_job() computes the costs), and those that an owner may edit.
grant update (
    status, current_stage, status_reason, revision, lease_expires_at, completed_at, updated_at,
    deleted_at, idempotency_key, request_digest, name, labels
) on lora_training_jobs to pipeline_user;

-- Figures over all users come from these columns only, and the statements that read them require at least five users.
create policy finished_forecasts on lora_training_jobs for select to pipeline_estimator
using (status = 'completed' and model_family is not null and not simulated);
-- The caller's own jobs correct the caller's forecasts, even a single one.
create policy own_finished_forecasts on lora_training_jobs for select to pipeline_quoter
using (user_id = (select caller_id()) and status = 'completed' and model_family is not null and not simulated);
grant select (
    user_id, worker_id, status, simulated, gpu_config, model_family, stack, software, started_at, completed_at, retry_count, peak_memory_gib,
    forecast_p10_seconds, forecast_seconds, forecast_p90_seconds, forecast_overhead_seconds, forecast_correction,
    forecast_slopes, forecast_model, forecast_tokens, trained_tokens
) on lora_training_jobs to pipeline_estimator, pipeline_quoter;
