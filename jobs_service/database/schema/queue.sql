-- The queue: its indexes, costs of leases, offers of trainers, and the access of trainers and the sweeper to jobs.

-- Of queued jobs only, so that claims cost the same however many jobs are finished.
create index lora_training_jobs_queue_idx on lora_training_jobs (gpu_type, user_id, queue_key, id) include (gpu_count)
where status = 'queued';
-- What the sweeper reads. Reports change none of its columns.
create index lora_training_jobs_leased_idx on lora_training_jobs (id) where status in ('initializing', 'running');
-- A trainer may read the datasets of its own jobs: this finds them, however many jobs train on a dataset.
create index lora_training_jobs_worker_idx on lora_training_jobs (dataset_id, worker_id);
create index lora_training_jobs_validation_idx on lora_training_jobs (validation_dataset_id, worker_id)
where validation_dataset_id is not null;

-- One row for each lease that ended: what it cost, and how it ended. A repeated report is answered from it.
create table cost_records (
    job_id uuid not null,
    user_id uuid not null,
    lease_epoch bigint not null,
    attempt integer not null,
    worker_id uuid not null,
    lease_token uuid not null,
    outcome text not null,
    -- SHA-256 of the report that ended it, where one did.
    result_digest bytea,
    hourly_rate numeric not null,
    billed_seconds double precision not null,
    -- Of it, `storage_usd` is for keeping the result: charged once, by the lease that completed the job.
    cost_usd numeric not null,
    storage_usd numeric not null default 0,
    -- When the lease began to cost.
    started_at timestamptz not null,
    ended_at timestamptz not null,
    constraint cost_records_pkey primary key (job_id, lease_epoch),
    constraint cost_records_job_fkey foreign key (job_id) references lora_training_jobs (id),
    constraint cost_records_outcome_check check (
        outcome in ('completed', 'failed', 'released', 'lease_expired', 'cost_limit', 'duration_limit', 'cancelled')
    ),
    constraint cost_records_amount_check check (cost_usd >= storage_usd and storage_usd >= 0 and billed_seconds >= 0)
);
create index cost_records_user_idx on cost_records (user_id, ended_at);

-- Recent offers of trainers, which explain why a job waits.
create table trainer_offers (
    worker_id uuid not null,
    -- Its name: the trainers of a fleet may share a token.
    trainer text not null default '',
    gpu_type text not null,
    gpu_count integer not null,
    simulated boolean not null default false,
    seen_at timestamptz not null default now(),
    constraint trainer_offers_pkey primary key (worker_id, trainer, gpu_type)
);

alter table cost_records enable row level security;
alter table cost_records force row level security;
alter table trainer_offers enable row level security;
alter table trainer_offers force row level security;

-- Owners read the costs of their jobs, with SQL: no RPC returns them. Cancelling a job writes a row.
create policy own_costs on cost_records for select to pipeline_user using (user_id = (select caller_id()));
-- Only the row of the lease that was cancelled. An existing row is not written again.
create policy cancelled_costs on cost_records for insert to pipeline_user
with check (user_id = (select caller_id()) and outcome = 'cancelled' and exists (
    select from lora_training_jobs j
    where j.id = job_id and j.status = 'cancelled' and j.lease_epoch = cost_records.lease_epoch
    and j.lease_token = cost_records.lease_token and j.current_cost - j.spent_cost = cost_records.cost_usd
));
grant select, insert on cost_records to pipeline_user;

-- Trainers read queued jobs and jobs that they have or had last. They change only the latter, and write only about those.
create policy leasable_jobs on lora_training_jobs for select to pipeline_worker
using (status = 'queued' or worker_id = (select caller_id()));
create policy leased_jobs on lora_training_jobs for update to pipeline_worker
using (status = 'queued' or worker_id = (select caller_id())) with check (worker_id = (select caller_id()));
create policy leased_datasets on lora_datasets for select to pipeline_worker
using (exists (
    select from lora_training_jobs j where j.dataset_id = lora_datasets.id and j.worker_id = (select caller_id())
) or exists (
    select from lora_training_jobs j
    where j.validation_dataset_id = lora_datasets.id and j.worker_id = (select caller_id())
));
create policy leased_events on job_events for insert to pipeline_worker
with check (exists (
    select from lora_training_jobs j
    where j.id = job_id and j.user_id = job_events.user_id and j.worker_id = (select caller_id())
    and j.revision = job_events.revision
));
create policy leased_notifications on lora_notifications for insert to pipeline_worker
with check (exists (
    select from lora_training_jobs j
    where j.id = (metadata ->> 'job_id')::uuid and j.user_id = lora_notifications.user_id
    and j.worker_id = (select caller_id())
));
create policy leased_metrics on job_metrics to pipeline_worker
using (exists (select from lora_training_jobs j where j.id = job_id and j.worker_id = (select caller_id())))
with check (exists (
    select from lora_training_jobs j
    where j.id = job_id and j.user_id = job_metrics.user_id and j.worker_id = (select caller_id())
    and j.lease_epoch = job_metrics.lease_epoch
));
create policy leased_costs on cost_records for select to pipeline_worker using (worker_id = (select caller_id()));
create policy ended_costs on cost_records for insert to pipeline_worker
with check (worker_id = (select caller_id()) and exists (
    select from lora_training_jobs j
    where j.id = job_id and j.user_id = cost_records.user_id and j.worker_id = (select caller_id())
    and j.lease_epoch = cost_records.lease_epoch and j.lease_token = cost_records.lease_token
));
create policy own_offers on trainer_offers to pipeline_worker
using (worker_id = (select caller_id())) with check (worker_id = (select caller_id()));
-- The name is part of notifications that reports write.
grant select (
    id, user_id, dataset_id, name, hyperparameters, gpu_config, gpu_type, gpu_count, base_model, training,
    validation_dataset_id, status, current_stage, progress, current_epoch, total_epochs, current_step, total_steps, current_metrics,
    hourly_rate, storage_usd, current_cost, final_cost, error_message, status_reason, revision, attempt, max_attempts, max_cost_usd,
    max_duration_seconds, worker_id, lease_epoch, lease_token, lease_started_at, lease_expires_at, running_since,
    measured_since, measured_from_step, spent_cost, spent_seconds, billed_seconds, cost_warned, queue_key, started_at, updated_at,
    retry_count, external_job_id, simulated, billed_from, waiting_message, checkpoint_uri, checkpoint_step, estimate, reforecast,
    reforecast_notifications, queued_at, completed_at, forecast_seconds, trainer, credential
) on lora_training_jobs to pipeline_worker;
grant update (
    status, current_stage, progress, current_epoch, current_step, current_metrics, error_message, status_reason,
    retry_count, external_job_id, artifact_id, artifact_uri, artifact_size, result_step, measurements, software, peak_memory_gib, trained_tokens, trainer,
    simulated, billed_from, waiting_message, checkpoint_uri, checkpoint_step, revision, attempt, worker_id,
    lease_epoch, lease_token, lease_started_at, lease_expires_at, running_since, measured_since, measured_from_step, spent_cost,
    spent_seconds, cost_warned, started_at, completed_at, updated_at, reforecast, reforecast_notifications
) on lora_training_jobs to pipeline_worker;
grant select (id, name, format, total_training_pairs, total_tokens, storage_bucket, storage_path, stored_size)
on lora_datasets to pipeline_worker;
grant insert (job_id, user_id, revision, type, status, data) on job_events to pipeline_worker;
grant insert (user_id, type, title, message, priority, action_url, metadata) on lora_notifications to pipeline_worker;
grant select, insert, update on job_metrics, trainer_offers to pipeline_worker;
grant select, insert on cost_records to pipeline_worker;

-- The sweeper moves jobs whose lease ran out or whose limit is reached; queue positions are counted from all jobs.
create policy all_jobs on lora_training_jobs to pipeline_system using (true) with check (true);
create policy all_costs on cost_records for insert to pipeline_system with check (true);
create policy all_offers on trainer_offers to pipeline_system using (true) with check (true);
grant select on lora_training_jobs, trainer_offers to pipeline_system;
grant update (
    status, current_stage, error_message, status_reason, retry_count, revision, attempt, lease_started_at, lease_expires_at,
    billed_from, running_since, measured_since, cost_warned, completed_at, updated_at
) on lora_training_jobs to pipeline_system;
grant insert on cost_records to pipeline_system;
grant delete on trainer_offers to pipeline_system;
