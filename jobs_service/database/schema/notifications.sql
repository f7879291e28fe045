-- Notifications: what an owner is told of a job.

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
    created_at timestamptz not null default now(),
    constraint lora_notifications_pkey primary key (id),
    constraint lora_notifications_priority_check check (priority in ('low', 'medium', 'high'))
);
create index lora_notifications_list_idx on lora_notifications (user_id, created_at desc, id desc);
create index lora_notifications_unread_idx on lora_notifications (user_id, created_at desc, id desc) where not read;

alter table lora_notifications enable row level security;
alter table lora_notifications force row level security;

create policy own_notifications on lora_notifications to pipeline_user
using (user_id = (select caller_id())) with check (user_id = (select caller_id()));
grant select, insert on lora_notifications to pipeline_user;
grant update (read) on lora_notifications to pipeline_user;

create policy all_notifications on lora_notifications for insert to pipeline_system with check (true);
grant insert on lora_notifications to pipeline_system;
