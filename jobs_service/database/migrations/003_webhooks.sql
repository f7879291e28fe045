-- Webhooks: where they go, what is on its way to each, and each attempt to send it.

-- Whoever makes a notification writes its deliveries too, and may neither see nor write any others: the trigger below does
-- it as this role, which nobody can become.
do $$
begin
    create role pipeline_outbox nologin noinherit;
exception when duplicate_object then
    null; -- roles belong to the cluster, and another database of it may have made it
end $$;
grant usage on schema public to pipeline_outbox;

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
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint webhooks_pkey primary key (id),
    constraint webhooks_secret_check check (octet_length(secret) between 24 and 64),
    constraint webhooks_old_secret_check check ((old_secret is null) = (old_secret_until is null)),
    constraint webhooks_disabled_check check (disabled_reason in ('by_owner', 'failing', 'gone'))
);
create index webhooks_user_idx on webhooks (user_id);

-- A secret that is replaced stays good for a day, so that receivers can change over. Its owner cannot read either.
create function keep_old_secret() returns trigger
language plpgsql
as $$
begin
    new.old_secret := old.secret;
    new.old_secret_until := now() + interval '24 hours';
    return new;
end
$$;
create trigger keep_old_secret before update of secret on webhooks
for each row execute function keep_old_secret();

create table webhook_deliveries (
    id uuid not null default gen_random_uuid(),
    -- No foreign key: a webhook that is deleted while a job moves must not stop the job. What is left over is never claimed,
    -- and is forgotten with its age.
    webhook_id uuid not null,
    user_id uuid not null,
    type text not null,
    -- Text, not jsonb: it is signed, so every attempt must send the same bytes.
    body text not null,
    status text not null default 'pending',
    attempt_count integer not null default 0,
    -- Attempts that failed since it was made or asked for again: where it stands in the back-off.
    failures integer not null default 0,
    -- While it is being sent, when its sender is taken for dead.
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
-- Only what waits is in it, by webhook: claims walk from one to the next.
create index webhook_deliveries_due_idx on webhook_deliveries (webhook_id, next_attempt_at)
where status in ('pending', 'sending');
create index webhook_deliveries_age_idx on webhook_deliveries (created_at);

create table webhook_attempts (
    delivery_id uuid not null,
    number integer not null,
    user_id uuid not null,
    started_at timestamptz not null default clock_timestamp(),
    -- Null: under way, or its sender stopped before it knew.
    duration_ms integer,
    http_status integer,
    error text,
    response text not null default '',
    constraint webhook_attempts_pkey primary key (delivery_id, number),
    constraint webhook_attempts_delivery_fkey foreign key (delivery_id) references webhook_deliveries (id) on delete cascade
);

-- The outbox. A trigger, since several statements of several roles make notifications, and other systems may: none can forget
-- it. For each row, so that a statement that notifies nobody, as most reports of progress, runs nothing; for a user without
-- webhooks it is one look into an index of few rows. Everything is named with its schema: it runs with another's rights.
create function write_webhook_deliveries() returns trigger
language plpgsql security definer
as $$
begin
    insert into public.webhook_deliveries (webhook_id, user_id, type, body)
    select
        w.id, new.user_id, new.type,
        jsonb_build_object(
            'type', new.type,
            'timestamp', to_char(new.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            'data', new.metadata || jsonb_build_object(
                'notification_id', new.id, 'user_id', new.user_id, 'title', new.title,
                'message', left(new.message, 4000), 'priority', new.priority, 'action_url', new.action_url
            )
        )::text
    from public.webhooks w
    where w.user_id = new.user_id and w.disabled_reason is null
    and (w.event_types = '{}' or new.type = any(w.event_types));
    return null;
end
$$;
-- An administrator who is no superuser gives functions to roles it is a member of, and that may create in the schema.
do $$
begin
    execute format('grant pipeline_outbox to %I', current_user);
    grant create on schema public to pipeline_outbox;
    alter function write_webhook_deliveries() owner to pipeline_outbox;
    revoke create on schema public from pipeline_outbox;
end $$;
create trigger write_webhook_deliveries after insert on lora_notifications
for each row execute function write_webhook_deliveries();

alter table webhooks enable row level security;
alter table webhooks force row level security;
alter table webhook_deliveries enable row level security;
alter table webhook_deliveries force row level security;
alter table webhook_attempts enable row level security;
alter table webhook_attempts force row level security;

create policy own_webhooks on webhooks to pipeline_user
using (user_id = (select caller_id())) with check (user_id = (select caller_id()));
-- To webhooks of one's own: row-level security shows no other.
create policy own_deliveries on webhook_deliveries to pipeline_user
using (user_id = (select caller_id()))
with check (user_id = (select caller_id()) and exists (select from webhooks w where w.id = webhook_id));
create policy own_attempts on webhook_attempts for select to pipeline_user using (user_id = (select caller_id()));
-- All but the secrets: those are written by their owner and read by the sender.
grant select (
    id, user_id, url, description, event_types, old_secret_until, disabled_reason, failing_since, created_at, updated_at
) on webhooks to pipeline_user;
grant insert (user_id, url, description, event_types, secret) on webhooks to pipeline_user;
grant update (url, description, event_types, secret, disabled_reason, failing_since, updated_at)
on webhooks to pipeline_user;
grant delete on webhooks to pipeline_user;
grant select, delete on webhook_deliveries to pipeline_user;
grant insert (webhook_id, user_id, type, body) on webhook_deliveries to pipeline_user;
grant update (status, failures, next_attempt_at, finished_at) on webhook_deliveries to pipeline_user;
grant select on webhook_attempts to pipeline_user;

create policy wanted_webhooks on webhooks for select to pipeline_outbox using (true);
create policy new_deliveries on webhook_deliveries for insert to pipeline_outbox with check (true);
grant select (id, user_id, event_types, disabled_reason) on webhooks to pipeline_outbox;
grant insert (webhook_id, user_id, type, body) on webhook_deliveries to pipeline_outbox;

create policy all_webhooks on webhooks to pipeline_system using (true) with check (true);
create policy all_deliveries on webhook_deliveries to pipeline_system using (true) with check (true);
create policy all_attempts on webhook_attempts to pipeline_system using (true) with check (true);
grant select on webhooks to pipeline_system;
grant update (old_secret, old_secret_until, disabled_reason, failing_since, updated_at) on webhooks to pipeline_system;
grant select, delete on webhook_deliveries to pipeline_system;
grant update (status, attempt_count, failures, next_attempt_at, finished_at) on webhook_deliveries to pipeline_system;
grant select on webhook_attempts to pipeline_system;
grant insert (delivery_id, number, user_id) on webhook_attempts to pipeline_system;
grant update (duration_ms, http_status, error, response) on webhook_attempts to pipeline_system;
