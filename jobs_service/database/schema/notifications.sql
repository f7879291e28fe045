-- Notifications of users, about their jobs above all.

create table lora_notifications (
    id uuid not null default gen_random_uuid(),
    user_id uuid not null,
    type text not null,
    title text not null,
    message text not null,
    priority text not null default 'low',
    read boolean not null default false,
    action_url text,
    metadata jsonb not null default '{}',
    -- Whether a later notification about the same job replaces it: people see the latest one of each job.
    superseded boolean not null default false,
    created_at timestamptz not null default now(),
    constraint lora_notifications_pkey primary key (id),
    constraint lora_notifications_priority_check check (priority in ('low', 'medium', 'high'))
);
create index lora_notifications_list_idx on lora_notifications (user_id, created_at desc, id desc) where not superseded;
create index lora_notifications_unread_idx on lora_notifications (user_id, created_at desc, id desc)
where not read and not superseded;
create index lora_notifications_job_idx on lora_notifications ((metadata ->> 'job_id')) where not superseded;

alter table lora_notifications enable row level security;
alter table lora_notifications force row level security;

create policy own_notifications on lora_notifications for select to pipeline_user using (user_id = (select caller_id()));
create policy read_notifications on lora_notifications for update to pipeline_user
using (user_id = (select caller_id())) with check (user_id = (select caller_id()));
-- Only about the caller's own jobs. The sender of webhooks writes about webhooks.
create policy new_notifications on lora_notifications for insert to pipeline_user
with check (
    user_id = (select caller_id()) and not metadata ? 'webhook_id'
    and (metadata ->> 'job_id' is null or exists (
        select from lora_training_jobs j where j.id = (metadata ->> 'job_id')::uuid
    ))
);
grant select, insert (user_id, type, title, message, priority, action_url, metadata) on lora_notifications to pipeline_user;
grant update (read) on lora_notifications to pipeline_user;

-- Old notifications are found by their age; a BRIN index costs an insertion next to nothing.
create index lora_notifications_age_idx on lora_notifications using brin (created_at);
create index lora_notifications_superseded_idx on lora_notifications (created_at) where superseded;

create policy old_notifications on lora_notifications for select to pipeline_system using (true);
create policy delete_old_notifications on lora_notifications for delete to pipeline_system using (true);
grant select (id, created_at, superseded), delete on lora_notifications to pipeline_system;
create policy all_notifications on lora_notifications for insert to pipeline_system with check (true);
grant insert (user_id, type, title, message, priority, action_url, metadata) on lora_notifications to pipeline_system;

-- The trigger supersede_notifications, which runs for every writer of notifications.
create policy superseded_notifications on lora_notifications to pipeline_outbox using (true) with check (true);
grant select (user_id, metadata, superseded), update (superseded) on lora_notifications to pipeline_outbox;
