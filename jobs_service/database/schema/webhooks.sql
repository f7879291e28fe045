-- Webhooks: where notifications are sent, what is on its way to each, and each attempt to send it.

create table webhooks (
    id uuid not null default gen_random_uuid(),
    user_id uuid not null,
    url text not null,
    description text not null default '',
    event_types text[] not null default '{}',
    secret bytea not null,
    old_secret bytea,
    old_secret_until timestamptz,
    -- Null: it is enabled.
    disabled_reason text,
    failing_since timestamptz,
    -- No request is sent before this time (Retry-After).
    paused_until timestamptz,
    -- Whether its last answer came within a second and was a 2xx. Such webhooks have a larger share of the sender.
    responsive boolean not null default false,
    idempotency_key uuid,
    request_digest bytea,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint webhooks_pkey primary key (id),
    constraint webhooks_secret_check check (octet_length(secret) between 24 and 64),
    constraint webhooks_old_secret_check check ((old_secret is null) = (old_secret_until is null)),
    constraint webhooks_disabled_check check (disabled_reason in ('by_owner', 'failing', 'gone')),
    constraint webhooks_request_key unique (user_id, idempotency_key),
    constraint webhooks_request_check check ((idempotency_key is null) = (request_digest is null))
);
create index webhooks_user_idx on webhooks (user_id);

create table webhook_deliveries (
    id uuid not null default gen_random_uuid(),
    -- No foreign key: deleting a webhook while a job moves must not stop the job. Deliveries without a webhook are never
    -- claimed, and are deleted with age.
    webhook_id uuid not null,
    user_id uuid not null,
    type text not null,
    -- Text, not jsonb: it is signed, so every attempt must send the same bytes.
    body text not null,
    status text not null default 'pending',
    attempt_count integer not null default 0,
    -- Failed attempts since it was created or sent again: its place in the back-off.
    failures integer not null default 0,
    -- While it is being sent: when its sender counts as dead.
    next_attempt_at timestamptz default now(),
    created_at timestamptz not null default now(),
    finished_at timestamptz,
    constraint webhook_deliveries_pkey primary key (id),
    constraint webhook_deliveries_status_check check (status in ('pending', 'sending', 'delivered', 'failed')),
    constraint webhook_deliveries_open_check check (
        (status in ('pending', 'sending')) = (next_attempt_at is not null)
        and (status in ('pending', 'sending')) = (finished_at is null)
    )
);
create index webhook_deliveries_list_idx on webhook_deliveries (webhook_id, created_at desc, id desc);
-- Only open deliveries are in it, by webhook: claims walk from one webhook to the next.
create index webhook_deliveries_due_idx on webhook_deliveries (webhook_id, next_attempt_at)
where status in ('pending', 'sending');
create index webhook_deliveries_age_idx on webhook_deliveries (created_at);

create table webhook_attempts (
    delivery_id uuid not null,
    number integer not null,
    user_id uuid not null,
    started_at timestamptz not null default clock_timestamp(),
    -- Null: under way, or its sender stopped before the answer came.
    duration_ms integer,
    http_status integer,
    error text,
    response text not null default '',
    constraint webhook_attempts_pkey primary key (delivery_id, number),
    constraint webhook_attempts_delivery_fkey foreign key (delivery_id) references webhook_deliveries (id) on delete cascade
);

-- How often, in the hour since `since`, a user made the service look up a name or send a request.
create table webhook_uses (
    user_id uuid not null,
    uses integer not null default 1,
    since timestamptz not null default now(),
    constraint webhook_uses_pkey primary key (user_id)
);
create index webhook_uses_since_idx on webhook_uses (since);

alter table webhooks enable row level security;
alter table webhooks force row level security;
alter table webhook_deliveries enable row level security;
alter table webhook_deliveries force row level security;
alter table webhook_attempts enable row level security;
alter table webhook_attempts force row level security;
alter table webhook_uses enable row level security;
alter table webhook_uses force row level security;

create policy own_webhooks on webhooks to pipeline_user
using (user_id = (select caller_id())) with check (user_id = (select caller_id()));
-- Only to the caller's own webhooks: row-level security hides others.
create policy own_deliveries on webhook_deliveries to pipeline_user
using (user_id = (select caller_id()))
with check (user_id = (select caller_id()) and exists (select from webhooks w where w.id = webhook_id));
create policy own_attempts on webhook_attempts for select to pipeline_user using (user_id = (select caller_id()));
create policy own_uses on webhook_uses to pipeline_user
using (user_id = (select caller_id())) with check (user_id = (select caller_id()));
-- All columns but the secrets, which the owner writes and only the sender reads.
grant select (
    id, user_id, url, description, event_types, old_secret_until, disabled_reason, failing_since, paused_until,
    idempotency_key, request_digest, created_at, updated_at
) on webhooks to pipeline_user;
grant insert (user_id, url, description, event_types, secret, idempotency_key, request_digest) on webhooks to pipeline_user;
grant update (url, description, event_types, secret, disabled_reason, failing_since, paused_until, updated_at)
on webhooks to pipeline_user;
grant delete on webhooks to pipeline_user;
grant select, delete on webhook_deliveries to pipeline_user;
grant insert (webhook_id, user_id, type, body) on webhook_deliveries to pipeline_user;
grant update (status, failures, next_attempt_at, finished_at) on webhook_deliveries to pipeline_user;
grant select on webhook_attempts to pipeline_user;
grant select, insert on webhook_uses to pipeline_user;
grant update (uses, since) on webhook_uses to pipeline_user;

-- The trigger write_webhook_deliveries, which runs for every writer of notifications.
create policy wanted_webhooks on webhooks for select to pipeline_outbox using (true);
create policy new_deliveries on webhook_deliveries for insert to pipeline_outbox with check (true);
grant select (id, user_id, event_types, disabled_reason) on webhooks to pipeline_outbox;
grant insert (webhook_id, user_id, type, body) on webhook_deliveries to pipeline_outbox;

-- What metrics count of the outbox.
create policy counted_webhooks on webhooks for select to pipeline_system using (true);
create policy counted_deliveries on webhook_deliveries for select to pipeline_system using (true);
grant select (id, paused_until) on webhooks to pipeline_system;
grant select (webhook_id, user_id, status, next_attempt_at) on webhook_deliveries to pipeline_system;

-- The sender of webhooks.
create policy all_webhooks on webhooks to pipeline_sender using (true) with check (true);
create policy all_deliveries on webhook_deliveries to pipeline_sender using (true) with check (true);
create policy all_attempts on webhook_attempts to pipeline_sender using (true) with check (true);
create policy all_uses on webhook_uses to pipeline_sender using (true) with check (true);
grant select on webhooks to pipeline_sender;
grant update (old_secret, old_secret_until, disabled_reason, failing_since, paused_until, responsive, updated_at)
on webhooks to pipeline_sender;
grant select, delete on webhook_deliveries to pipeline_sender;
grant update (status, attempt_count, failures, next_attempt_at, finished_at) on webhook_deliveries to pipeline_sender;
grant select on webhook_attempts to pipeline_sender;
grant insert (delivery_id, number, user_id) on webhook_attempts to pipeline_sender;
grant update (duration_ms, http_status, error, response) on webhook_attempts to pipeline_sender;
grant select, delete on webhook_uses to pipeline_sender;
-- It tells owners that a webhook was disabled.
create policy disabled_webhooks on lora_notifications for insert to pipeline_sender
with check (type = 'webhook_disabled' and exists (
    select from webhooks w where w.id = (metadata ->> 'webhook_id')::uuid and w.user_id = lora_notifications.user_id
));
grant insert (user_id, type, title, message, priority, metadata) on lora_notifications to pipeline_sender;
