-- The life of a job: leases, limits and places in the queue on the job itself; events, metrics, costs and trainers beside it.

-- Our own tasks (the sweeper, the tailer) become this role; no token names it, so no caller can.
do $$
begin
    create role pipeline_system nologin noinherit;
exception when duplicate_object then
    null; -- roles belong to the cluster, and another database of it may have made it
end $$;
grant pipeline_system to pipeline_service;
grant usage on schema public to pipeline_system;

alter table lora_training_jobs
    add column priority integer not null default 5,
    add column max_cost_usd numeric,
    add column max_duration_seconds bigint,
    add column status_reason text,
    -- Number of the latest event. An event of each number is written in the transaction that sets it.
    add column revision bigint not null default 0,
    add column attempt integer not null default 1,
    add column max_attempts integer not null default 3,
    add column retried_from uuid,
    add column artifact_uri text,
    add column trainer text,
    -- The trainer that has it, or had it last.
    add column worker_id uuid,
    add column lease_epoch bigint not null default 0,
    add column lease_token uuid,
    add column lease_started_at timestamptz,
    add column lease_expires_at timestamptz,
    -- When this attempt began to train, and at which step: what the pace is measured from.
    add column running_since timestamptz,
    add column running_from_step bigint not null default 0,
    -- Cost and time of the attempts before the one that runs.
    add column spent_cost numeric not null default 0,
    add column spent_seconds double precision not null default 0,
    add column billed_seconds double precision not null default 0,
    add column cost_warned boolean not null default false,
    add column gpu_type text generated always as (gpu_config ->> 'type') stored,
    add column gpu_count integer generated always as ((gpu_config ->> 'count')::integer) stored,
    -- Place among its owner's jobs, by priority, then age: a step of priority is worth an hour, so that none waits for ever.
    add column place timestamp generated always as (
        (queued_at at time zone 'UTC') - priority * interval '1 hour'
    ) stored,
    add constraint lora_training_jobs_priority_check check (priority between 0 and 9),
    add constraint lora_training_jobs_limits_check check (max_cost_usd > 0 and max_duration_seconds > 0),
    add constraint lora_training_jobs_attempt_check check (attempt between 1 and max_attempts),
    add constraint lora_training_jobs_reason_check check (
        status_reason in (
            'trainer_error', 'lease_expired', 'cost_limit', 'duration_limit', 'cancelled_by_owner', 'released'
        )
    ),
    -- Whoever works on it has a lease, and nobody else. The token stays when the lease is over.
    add constraint lora_training_jobs_lease_check check (
        (status in ('initializing', 'running')) = (lease_expires_at is not null)
        and (lease_expires_at is null or (
            worker_id is not null and lease_token is not null and lease_started_at is not null and lease_epoch > 0
        ))
    ),
    add constraint lora_training_jobs_final_cost_check check (
        final_cost is null or status in ('completed', 'failed', 'cancelled')
    ),
    add constraint lora_training_jobs_spent_check check (
        spent_cost >= 0 and current_cost >= spent_cost and spent_seconds >= 0 and billed_seconds >= spent_seconds
    );
-- Reports rewrite the row every few seconds; room on its page keeps them off the indexes.
alter table lora_training_jobs set (fillfactor = 85);

-- Time on GPUs up to now, in seconds: that of earlier attempts, and since the lease that runs. What comes after a lease's end
-- is nobody's to pay. `expires` is null where no lease runs.
create function live_seconds(
    billed double precision, spent double precision, started timestamptz, expires timestamptz
) returns double precision
language sql stable parallel safe
as $$
    select case
        when expires is null then billed
        else spent + greatest(0, extract(epoch from least(now(), expires) - started))::double precision
    end
$$;

-- Cost up to now, US dollars: the frozen rate for that time, and never more than the owner's limit.
create function live_cost(
    billed numeric, spent numeric, hourly_rate numeric, started timestamptz, expires timestamptz, most numeric
) returns numeric
language sql stable parallel safe
as $$
    select case
        when expires is null then billed
        else least(most, spent + hourly_rate * greatest(0, extract(epoch from least(now(), expires) - started)) / 3600)
    end
$$;

-- Time on GPUs left before the nearer of the owner's limits, in seconds; null where there is none.
create function seconds_to_limit(
    cost numeric, hourly_rate numeric, most numeric, seconds double precision, longest bigint
) returns double precision
language sql immutable parallel safe
as $$
    select greatest(0, nearer)
    from (select least(
        ((most - cost) / nullif(hourly_rate, 0) * 3600)::double precision, (longest - seconds)::double precision
    )) as limits (nearer)
    where nearer is not null
$$;

-- A job as its owner sees it: costs up to now, its dataset in short, and how many of the owner's jobs wait before it.
create view job_details with (security_invoker = true) as
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
    d.name as dataset_name, d.format as dataset_format, d.total_training_pairs as dataset_pairs
from lora_training_jobs j join lora_datasets d on d.id = j.dataset_id;
grant select on job_details to pipeline_user;

-- Which states follow which, and who may move a job where. Jobs are moved by our statements alone, whose conditions say
-- the same: this holds whatever those say.
create function check_transition() returns trigger
language plpgsql
as $$
begin
    if not (old.status, new.status) in (
        ('queued', 'initializing'), ('queued', 'cancelled'),
        ('initializing', 'queued'), ('initializing', 'running'), ('initializing', 'failed'), ('initializing', 'cancelled'),
        ('running', 'queued'), ('running', 'completed'), ('running', 'failed'), ('running', 'cancelled')
    ) or (current_user = 'pipeline_user' and new.status <> 'cancelled') then
        raise exception 'a job does not go from % to %', old.status, new.status
            using errcode = 'check_violation', constraint = 'lora_training_jobs_transition_check';
    end if;
    return new;
end
$$;
create trigger transition before update of status on lora_training_jobs
for each row when (old.status is distinct from new.status) execute function check_transition();

-- The queue: only what waits is in it, so finished jobs cost a claim nothing.
create index lora_training_jobs_queue_idx on lora_training_jobs (gpu_type, user_id, place, id) include (gpu_count)
where status = 'queued';
-- What the sweeper looks at. Reports change none of its columns.
create index lora_training_jobs_leased_idx on lora_training_jobs (id) where status in ('initializing', 'running');
-- What counts against a user's limit.
create index lora_training_jobs_open_idx on lora_training_jobs (user_id)
where status in ('queued', 'initializing', 'running');

create table job_events (
    -- Transactions end in another order than they begin. Events are read in the order of (xid, seq), up to the oldest
    -- transaction that still runs: below that nothing can appear any more.
    xid xid8 not null default pg_current_xact_id(),
    seq bigint generated always as identity,
    job_id uuid not null,
    user_id uuid not null,
    revision bigint not null,
    type text not null,
    status text not null,
    data jsonb not null,
    created_at timestamptz not null default clock_timestamp(),
    constraint job_events_pkey primary key (xid, seq),
    constraint job_events_job_fkey foreign key (job_id) references lora_training_jobs (id),
    -- Exactly one event for each change of a job.
    constraint job_events_revision_key unique (job_id, revision)
);
create index job_events_user_idx on job_events (user_id, xid, seq);
create index job_events_progress_idx on job_events (created_at) where type = 'progress';

create table job_metrics (
    job_id uuid not null,
    user_id uuid not null,
    step bigint not null,
    epoch double precision not null,
    lease_epoch bigint not null,
    values jsonb not null,
    created_at timestamptz not null default now(),
    constraint job_metrics_pkey primary key (job_id, step),
    constraint job_metrics_job_fkey foreign key (job_id) references lora_training_jobs (id)
);

-- One row for each lease that ended: what it cost, and what came of it. It also remembers which reports were taken.
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
    cost_usd numeric not null,
    started_at timestamptz not null,
    ended_at timestamptz not null,
    constraint cost_records_pkey primary key (job_id, lease_epoch),
    constraint cost_records_job_fkey foreign key (job_id) references lora_training_jobs (id),
    constraint cost_records_outcome_check check (
        outcome in ('completed', 'failed', 'released', 'lease_expired', 'cost_limit', 'duration_limit', 'cancelled')
    ),
    constraint cost_records_amount_check check (cost_usd >= 0 and billed_seconds >= 0)
);
create index cost_records_user_idx on cost_records (user_id, ended_at);

-- What trainers have offered lately: why a job waits.
create table trainer_offers (
    worker_id uuid not null,
    gpu_type text not null,
    gpu_count integer not null,
    seen_at timestamptz not null default now(),
    constraint trainer_offers_pkey primary key (worker_id, gpu_type)
);

alter table job_events enable row level security;
alter table job_events force row level security;
alter table job_metrics enable row level security;
alter table job_metrics force row level security;
alter table cost_records enable row level security;
alter table cost_records force row level security;
alter table trainer_offers enable row level security;
alter table trainer_offers force row level security;

-- Users see what is theirs, and write what cancelling writes.
create policy own_events on job_events to pipeline_user
using (user_id = (select caller_id())) with check (user_id = (select caller_id()));
create policy own_metrics on job_metrics for select to pipeline_user using (user_id = (select caller_id()));
create policy own_costs on cost_records to pipeline_user
using (user_id = (select caller_id())) with check (user_id = (select caller_id()));
grant select, insert on job_events, cost_records to pipeline_user;
grant select on job_metrics to pipeline_user;
grant update (
    status, current_stage, status_reason, revision, current_cost, final_cost, billed_seconds, lease_expires_at,
    completed_at, updated_at
) on lora_training_jobs to pipeline_user;

-- Trainers see what waits and what they have or had last, change that alone, and write about that alone.
create policy leasable_jobs on lora_training_jobs for select to pipeline_worker
using (status = 'queued' or worker_id = (select caller_id()));
create policy leased_jobs on lora_training_jobs for update to pipeline_worker
using (status = 'queued' or worker_id = (select caller_id())) with check (worker_id = (select caller_id()));
create policy leased_datasets on lora_datasets for select to pipeline_worker
using (exists (
    select from lora_training_jobs j where j.dataset_id = lora_datasets.id and j.worker_id = (select caller_id())
));
create policy leased_events on job_events for insert to pipeline_worker
with check (exists (
    select from lora_training_jobs j
    where j.id = job_id and j.user_id = job_events.user_id and j.worker_id = (select caller_id())
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
));
create policy leased_costs on cost_records to pipeline_worker
using (worker_id = (select caller_id()))
with check (worker_id = (select caller_id()) and exists (
    select from lora_training_jobs j
    where j.id = job_id and j.user_id = cost_records.user_id and j.worker_id = (select caller_id())
));
create policy own_offers on trainer_offers to pipeline_worker
using (worker_id = (select caller_id())) with check (worker_id = (select caller_id()));
grant select (
    id, user_id, dataset_id, hyperparameters, gpu_config, gpu_type, gpu_count, status, current_stage, progress,
    current_epoch, total_epochs, current_step, total_steps, current_metrics, hourly_rate, current_cost, final_cost,
    error_message, status_reason, revision, attempt, max_attempts, max_cost_usd, max_duration_seconds, worker_id,
    lease_epoch, lease_token, lease_started_at, lease_expires_at, running_since, running_from_step, spent_cost,
    spent_seconds, billed_seconds, cost_warned, place, started_at, updated_at, retry_count, external_job_id
) on lora_training_jobs to pipeline_worker;
grant update (
    status, current_stage, progress, current_epoch, current_step, current_metrics, current_cost, final_cost,
    error_message, status_reason, retry_count, external_job_id, artifact_id, artifact_uri, trainer, revision, attempt,
    worker_id, lease_epoch, lease_token, lease_started_at, lease_expires_at, running_since, running_from_step,
    spent_cost, spent_seconds, billed_seconds, cost_warned, started_at, completed_at, updated_at
) on lora_training_jobs to pipeline_worker;
grant select (id, name, format, total_training_pairs, total_tokens, storage_bucket, storage_path)
on lora_datasets to pipeline_worker;
grant insert on job_events, lora_notifications to pipeline_worker;
grant select, insert, update on job_metrics, trainer_offers to pipeline_worker;
grant select, insert on cost_records to pipeline_worker;

-- Our own tasks: what the sweeper moves, what the tailer reads, what a place in the queue is counted from.
create policy all_jobs on lora_training_jobs to pipeline_system using (true) with check (true);
create policy all_datasets on lora_datasets for select to pipeline_system using (true);
create policy all_events on job_events to pipeline_system using (true) with check (true);
create policy all_costs on cost_records for insert to pipeline_system with check (true);
create policy all_notifications on lora_notifications for insert to pipeline_system with check (true);
create policy all_offers on trainer_offers to pipeline_system using (true) with check (true);
grant select on lora_training_jobs, job_events, trainer_offers to pipeline_system;
grant select (id, name) on lora_datasets to pipeline_system;
grant update (
    status, current_stage, current_cost, final_cost, error_message, status_reason, retry_count, revision, attempt,
    lease_expires_at, billed_seconds, cost_warned, completed_at, updated_at
) on lora_training_jobs to pipeline_system;
grant insert on job_events, cost_records, lora_notifications to pipeline_system;
grant delete on job_events, trainer_offers to pipeline_system;
