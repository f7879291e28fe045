-- The roles that reach the tables, who the caller of a transaction is, and users who may not sign in.

-- The callers' roles, and that of the services' own tasks. They cannot log in: the services' login becomes one of them for
-- the length of a transaction. No token names pipeline_system. No login becomes pipeline_outbox: triggers on notifications run as
-- it.
do $$
declare
    role_name text;
begin
    foreach role_name in array array[
        'pipeline_service', 'pipeline_user', 'pipeline_worker', 'pipeline_system', 'pipeline_outbox'
    ] loop
        begin
            execute format('create role %I nologin noinherit', role_name);
        exception when duplicate_object then
            null; -- Roles belong to the cluster: another database of it may have created this one.
        end;
    end loop;
end $$;
grant pipeline_user, pipeline_worker, pipeline_system to pipeline_service;
grant usage on schema public to pipeline_service, pipeline_user, pipeline_worker, pipeline_system, pipeline_outbox;

-- The caller's user id; null without valid claims, and then no policy lets a row through.
create function caller_id() returns uuid
language sql stable parallel safe
as $$ select (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid $$;

-- Users who may not sign in any more, whatever their tokens say.
create table disabled_users (
    user_id uuid not null,
    disabled_at timestamptz not null default now(),
    constraint disabled_users_pkey primary key (user_id)
);
alter table disabled_users enable row level security;
alter table disabled_users force row level security;
create policy sign_in_check on disabled_users for select to pipeline_service using (true);
grant select on disabled_users to pipeline_service;
