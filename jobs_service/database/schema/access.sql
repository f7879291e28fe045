-- Roles, the caller of a transaction, and disabled users.

-- The roles of callers (pipeline_user, pipeline_worker; pipeline_quoter is a user at the Estimator), of the Jobs service's own tasks
-- (pipeline_system) and of the sender of webhooks (pipeline_sender). They cannot log in: a login becomes one of them for the length of
-- a transaction. No token names the latter two. No login becomes pipeline_outbox: triggers run as it.
-- Each process has a login that becomes what it needs and nothing else: pipeline_estimator, pipeline_jobs, pipeline_webhooks.
-- pipeline_service has the rights of all three: `pipeline serve` is one process. The migration gives logins their passwords.
do $$
declare
    role_name text;
begin
    foreach role_name in array array[
        'pipeline_user', 'pipeline_quoter', 'pipeline_worker', 'pipeline_system', 'pipeline_sender', 'pipeline_outbox',
        'pipeline_estimator', 'pipeline_jobs', 'pipeline_webhooks', 'pipeline_service'
    ] loop
        begin
            execute format('create role %I nologin noinherit', role_name);
        exception when duplicate_object then
            null; -- Roles belong to the cluster: another database of it may have created this one.
        end;
    end loop;
end $$;
alter role pipeline_service inherit;
grant pipeline_quoter to pipeline_estimator;
grant pipeline_user, pipeline_worker, pipeline_system to pipeline_jobs;
grant pipeline_sender to pipeline_webhooks;
grant pipeline_estimator, pipeline_jobs, pipeline_webhooks to pipeline_service;
grant usage on schema public to pipeline_user, pipeline_quoter, pipeline_worker, pipeline_system, pipeline_sender, pipeline_outbox,
pipeline_estimator, pipeline_jobs, pipeline_webhooks, pipeline_service;

-- The caller's user id; null without valid claims, and then no policy lets a row through.
create function caller_id() returns uuid
language sql stable parallel safe
as $$ select (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid $$;

-- Users whose tokens and API keys are refused.
create table disabled_users (
    user_id uuid not null,
    disabled_at timestamptz not null default now(),
    constraint disabled_users_pkey primary key (user_id)
);
alter table disabled_users enable row level security;
alter table disabled_users force row level security;
create policy sign_in_check on disabled_users for select to pipeline_estimator, pipeline_jobs using (true);
grant select on disabled_users to pipeline_estimator, pipeline_jobs;

-- Roles, policies and grants as these files make them, a line each; servers compare the database with it at start.
create table if not exists pipeline_internal.access (
    line text not null,
    constraint access_pkey primary key (line)
);
grant usage on schema pipeline_internal to pipeline_estimator, pipeline_jobs, pipeline_webhooks;
grant select on pipeline_internal.access to pipeline_estimator, pipeline_jobs, pipeline_webhooks;
