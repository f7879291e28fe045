-- name: lock
-- One migration at a time; no other lock of this database has this key. It is released when the connection closes.
select pg_advisory_lock(7224368501);

-- name: create_ledger
-- In a schema of its own: `public` holds guarded tables only.
create schema if not exists pipeline_internal;
create table if not exists pipeline_internal.steps (
    name text primary key,
    digest text not null,
    applied_at timestamptz not null default now()
);

-- name: has_old_numbering
-- The ledger of the numbered migrations that databases had before the schema was one file for each package.
select to_regclass('pipeline_internal.migrations') is not null;

-- name: applied
-- The steps that this database has, and the digest of each file when it was applied.
select name, digest from pipeline_internal.steps;

-- name: record
-- In the transaction of the step itself.
insert into pipeline_internal.steps (name, digest) values ($1, $2)
on conflict (name) do update set digest = excluded.digest, applied_at = now();

-- name: format_login
-- A role's password verifier cannot be a parameter, so the server quotes it. $1: one of our logins.
select format('alter role %I login password %L', $1::text, $2::text);

-- name: format_setting
-- Nor can a setting's value be a parameter. $1: one of our logins.
select format('alter role %I set %I = %L', $1::text, $2::text, $3::text);

-- name: transaction_limit
-- The statement that limits idle transactions of all roles: events are delivered only up to the oldest open transaction. No row
-- if the database has a limit already.
select format('alter database %I set idle_in_transaction_session_timeout = %L', current_database(), $1::text)
where not exists (
    select from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase, unnest(s.setconfig) setting
    where d.datname = current_database() and s.setrole = 0 and setting like 'idle_in_transaction_session_timeout=%'
);

-- name: begin_expected
-- A schema in which the files are applied once more, to read the access that they give; the transaction is rolled back.
-- An administrator who is no superuser gives functions only to roles that may create in their schema.
create schema pipeline_expected;
grant create on schema pipeline_expected to pipeline_outbox;
set local search_path to pipeline_expected;

-- name: expected_roles
-- Lines of our roles, as schema/access.sql makes them. Roles belong to the cluster: the files applied once more would show what others
-- granted to them too.
select line from (values
    ('role pipeline_user becomes nobody'),
    ('role pipeline_quoter becomes nobody'),
    ('role pipeline_worker becomes nobody'),
    ('role pipeline_system becomes nobody'),
    ('role pipeline_sender becomes nobody'),
    ('role pipeline_outbox becomes nobody'),
    ('role pipeline_estimator becomes pipeline_quoter'),
    ('role pipeline_jobs becomes pipeline_system, pipeline_user, pipeline_worker'),
    ('role pipeline_webhooks becomes pipeline_sender'),
    ('role pipeline_service, inherits, becomes pipeline_estimator, pipeline_jobs, pipeline_webhooks')
) as expected (line);

-- name: record_access
-- $1: the lines that the files make.
with removed as (delete from pipeline_internal.access where line <> all($1::text[]))
insert into pipeline_internal.access (line) select unnest($1::text[]) on conflict do nothing;
