-- name: lock
-- One migration at a time; the key is ours alone in this database. Held until the connection closes.
select pg_advisory_lock(7224368501);

-- name: create_ledger
-- In a schema of its own: `public` holds guarded tables only.
create schema if not exists pipeline_internal;
create table if not exists pipeline_internal.migrations (
    number integer primary key,
    name text not null,
    applied_at timestamptz not null default now()
);

-- name: applied
-- What this database has already.
select number from pipeline_internal.migrations;

-- name: record
-- In the transaction of the migration itself.
insert into pipeline_internal.migrations (number, name) values ($1, $2);

-- name: format_login
-- What is kept of a role's password cannot be a parameter, so the server quotes it.
select format('alter role pipeline_service login password %L', $1::text);
