-- Workers from whose finished jobs forecasts do not learn. Operators write it: `python -m estimator_service lessons`.

create table withdrawn_workers (
    worker_id uuid not null,
    reason text not null,
    withdrawn_at timestamptz not null default now(),
    constraint withdrawn_workers_pkey primary key (worker_id),
    constraint withdrawn_workers_reason_check check (length(reason) between 1 and 1000)
);
alter table withdrawn_workers enable row level security;
alter table withdrawn_workers force row level security;

-- Readable by every caller: estimates of all users leave out the same jobs.
create policy withdrawn_workers_read on withdrawn_workers for select to pipeline_quoter, pipeline_estimator using (true);
grant select on withdrawn_workers to pipeline_quoter, pipeline_estimator;
