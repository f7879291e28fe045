-- The three tables that other systems read, their row-level security, and the roles that reach them.

-- Callers' roles. They sign in to nothing: the services' login becomes one of them for the length of a transaction.
do $$
declare
    wanted text;
begin
    foreach wanted in array array['pipeline_user', 'pipeline_worker', 'pipeline_service'] loop
        begin
            execute format('create role %I nologin noinherit', wanted);
        exception when duplicate_object then
            null; -- roles belong to the cluster, and another database of it may have made them
        end;
    end loop;
end $$;
grant pipeline_user, pipeline_worker to pipeline_service;
grant usage on schema public to pipeline_service, pipeline_user, pipeline_worker;

-- The caller of this transaction, null for anybody without valid claims: then no policy lets a row through.
create function caller_id() returns uuid
language sql stable parallel safe
as $$ select (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid $$;

create table lora_datasets (
    id uuid not null default gen_random_uuid(),
    user_id uuid not null,
    name text not null,
    description text,
    format text,
    status text not null default 'uploading',
    training_ready boolean not null default false,
    total_training_pairs bigint,
    total_validation_pairs bigint,
    total_tokens bigint,
    p50_tokens integer,
    p95_tokens integer,
    longest_tokens integer,
    storage_bucket text,
    storage_path text,
    file_name text,
    file_size bigint,
    validated_at timestamptz,
    validation_errors jsonb,
    validation_error_count bigint not null default 0,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    constraint lora_datasets_pkey primary key (id),
    -- Lets a job name its owner and its dataset together, so that nobody's job trains on another's data.
    constraint lora_datasets_owner_key unique (id, user_id),
    constraint lora_datasets_status_check check (status in ('uploading', 'validating', 'ready', 'error')),
    constraint lora_datasets_counts_check check (
        total_training_pairs >= 0 and total_validation_pairs >= 0 and total_tokens >= 0
        and file_size >= 0 and validation_error_count >= 0
    )
);
create index lora_datasets_list_idx on lora_datasets (user_id, created_at desc, id desc) where deleted_at is null;

create table lora_training_jobs (
    id uuid not null default gen_random_uuid(),
    user_id uuid not null,
    dataset_id uuid not null,
    preset_id text not null,
    hyperparameters jsonb not null,
    gpu_config jsonb not null,
    status text not null default 'queued',
    current_stage text not null default 'queued',
    progress double precision not null default 0,
    current_epoch integer not null default 0,
    total_epochs integer not null,
    current_step bigint not null default 0,
    total_steps bigint not null,
    current_metrics jsonb not null default '{}',
    queued_at timestamptz not null default now(),
    started_at timestamptz,
    completed_at timestamptz,
    estimated_total_cost numeric not null,
    client_estimated_cost numeric,
    hourly_rate numeric not null,
    current_cost numeric not null default 0,
    final_cost numeric,
    error_message text,
    retry_count integer not null default 0,
    external_job_id text,
    artifact_id uuid,
    request_id uuid,
    request_digest bytea,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint lora_training_jobs_pkey primary key (id),
    constraint lora_training_jobs_dataset_fkey foreign key (dataset_id, user_id) references lora_datasets (id, user_id),
    -- Idempotency: one job for a key, whoever else uses the same key.
    constraint lora_training_jobs_request_key unique (user_id, request_id),
    constraint lora_training_jobs_request_check check ((request_id is null) = (request_digest is null)),
    constraint lora_training_jobs_preset_check check (preset_id in ('fast', 'balanced', 'quality', 'custom')),
    constraint lora_training_jobs_status_check check (
        status in ('queued', 'initializing', 'running', 'completed', 'failed', 'cancelled')
    ),
    constraint lora_training_jobs_progress_check check (progress between 0 and 100),
    constraint lora_training_jobs_position_check check (
        current_epoch between 0 and total_epochs and current_step between 0 and total_steps
    ),
    constraint lora_training_jobs_money_check check (
        estimated_total_cost >= 0 and client_estimated_cost >= 0 and hourly_rate >= 0
        and current_cost >= 0 and final_cost >= 0
    ),
    constraint lora_training_jobs_final_check check (
        (status in ('completed', 'failed', 'cancelled')) = (completed_at is not null)
    )
);
-- Led by the owner: a person's page costs the same whatever others have.
create index lora_training_jobs_list_idx on lora_training_jobs (user_id, created_at desc, id desc) include (status);
create index lora_training_jobs_dataset_idx on lora_training_jobs (dataset_id);

create table lora_notifications (
    id uuid not null default gen_random_uuid(),
    user_id uuid not null,
    type text not null,
    title text not null,
    message text not null,
    priority text not null default 'low',
    read boolean not null default false,
    action_url text,
    metadata jsonb not null default '{}',
    created_at timestamptz not null default now(),
    constraint lora_notifications_pkey primary key (id),
    constraint lora_notifications_priority_check check (priority in ('low', 'medium', 'high'))
);
create index lora_notifications_list_idx on lora_notifications (user_id, created_at desc, id desc);
create index lora_notifications_unread_idx on lora_notifications (user_id, created_at desc, id desc) where not read;

-- Users who may not sign in any more, whatever their tokens say.
create table disabled_users (
    user_id uuid not null,
    disabled_at timestamptz not null default now(),
    constraint disabled_users_pkey primary key (user_id)
);

alter table lora_datasets enable row level security;
alter table lora_datasets force row level security;
alter table lora_training_jobs enable row level security;
alter table lora_training_jobs force row level security;
alter table lora_notifications enable row level security;
alter table lora_notifications force row level security;
alter table disabled_users enable row level security;
alter table disabled_users force row level security;

-- `(select …)` is worked out once a statement, not once a row.
create policy own_datasets on lora_datasets to pipeline_user
using (user_id = (select caller_id())) with check (user_id = (select caller_id()));
create policy own_jobs on lora_training_jobs to pipeline_user
using (user_id = (select caller_id())) with check (user_id = (select caller_id()));
create policy own_notifications on lora_notifications to pipeline_user
using (user_id = (select caller_id())) with check (user_id = (select caller_id()));
create policy sign_in_check on disabled_users for select to pipeline_service using (true);

grant select, insert on lora_datasets, lora_training_jobs, lora_notifications to pipeline_user;
-- `on conflict do update` touches the key to find the job that has it; nothing else of a job is a user's to change.
grant update (request_id) on lora_training_jobs to pipeline_user;
grant update (read) on lora_notifications to pipeline_user;
grant select on disabled_users to pipeline_service;
