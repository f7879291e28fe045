-- Events of jobs, one for each change, and metrics by step.

create table job_events (
    -- Transactions end in another order than they begin. Events are read in the order of (xid, seq), up to the oldest
    -- transaction that still runs: no event can appear below that.
    xid xid8 not null default pg_current_xact_id(),
    seq bigint generated always as identity,
    job_id uuid not null,
    user_id uuid not null,
    revision bigint not null,
    type text not null,
    status text not null,
    data jsonb not null,
    -- Limits the size of pages. Stored, since computing it would read all of the data.
    log_bytes integer not null generated always as (coalesce(octet_length(data ->> 'log_lines'), 0)) stored,
    created_at timestamptz not null default clock_timestamp(),
    constraint job_events_pkey primary key (xid, seq),
    constraint job_events_job_fkey foreign key (job_id) references lora_training_jobs (id),
    -- Exactly one event for each change of a job.
    constraint job_events_revision_key unique (job_id, revision),
    -- An event that cannot be read would stop all watches.
    constraint job_events_type_check check (
        type in (
            'queued', 'leased', 'started', 'progress', 'completed', 'failed', 'cancelled', 'lease_lost', 'retried', 'released',
            'cost_warning', 'reforecast'
        )
        and status in ('queued', 'initializing', 'running', 'completed', 'failed', 'cancelled')
        and jsonb_typeof(data) = 'object'
    )
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

alter table job_events enable row level security;
alter table job_events force row level security;
alter table job_metrics enable row level security;
alter table job_metrics force row level security;

create policy own_events on job_events for select to pipeline_user using (user_id = (select caller_id()));
-- Only for the latest revision of the caller's own job: an event of a later revision would make that change of the job fail.
create policy new_events on job_events for insert to pipeline_user
with check (user_id = (select caller_id()) and exists (
    select from lora_training_jobs j where j.id = job_id and j.revision = job_events.revision
));
create policy own_metrics on job_metrics for select to pipeline_user using (user_id = (select caller_id()));
-- A user's calls write events when they create and cancel jobs.
grant select, insert (job_id, user_id, revision, type, status, data) on job_events to pipeline_user;
grant select on job_metrics to pipeline_user;

create policy all_events on job_events for select to pipeline_system using (true);
create policy system_events on job_events for insert to pipeline_system with check (true);
create policy old_events on job_events for delete to pipeline_system using (type = 'progress');
grant select, insert (job_id, user_id, revision, type, status, data), delete on job_events to pipeline_system;
