-- Audit log: what users did, or programs in their name. Append-only: no role of the services may change or delete a row. The
-- trigger write_audit_event inserts rows, in the transaction of the change; downloads, which change nothing, are inserted by
-- their callers.

create table audit_events (
    id bigint not null generated always as identity,
    user_id uuid not null,
    action text not null,
    at timestamptz not null default clock_timestamp(),
    resource_id uuid not null,
    resource_name text not null default '',
    api_key_id uuid,
    -- Address that connected to the service, and that of the client as the gateway saw it.
    address text,
    client_address text,
    request_id text,
    constraint audit_events_pkey primary key (id)
);
create index audit_events_user_idx on audit_events (user_id, id desc);

alter table audit_events enable row level security;
alter table audit_events force row level security;

create policy own_audit_events on audit_events for select to pipeline_user, pipeline_worker
using (user_id = (select caller_id()));
grant select on audit_events to pipeline_user, pipeline_worker;

create policy own_downloads on audit_events for insert to pipeline_user
with check (
    user_id = (select caller_id()) and action = 'artifact_downloaded'
    and exists (select from lora_training_jobs j where j.id = resource_id)
);
grant insert (user_id, action, resource_id, resource_name, api_key_id, address, client_address, request_id)
on audit_events to pipeline_user;

create policy new_audit_events on audit_events for insert to pipeline_outbox with check (true);
grant insert (user_id, action, resource_id, resource_name, api_key_id, address, client_address, request_id)
on audit_events to pipeline_outbox;
