-- What a user may ask for in a time, and webhooks that are created once however often that is asked for.

-- How often in the hour since `since` a user made us look up a name or send a request.
create table webhook_uses (
    user_id uuid not null,
    uses integer not null default 1,
    since timestamptz not null default now(),
    constraint webhook_uses_pkey primary key (user_id)
);
alter table webhook_uses enable row level security;
alter table webhook_uses force row level security;
create policy own_uses on webhook_uses to pipeline_user
using (user_id = (select caller_id())) with check (user_id = (select caller_id()));
grant select, insert on webhook_uses to pipeline_user;
grant update (uses, since) on webhook_uses to pipeline_user;

alter table webhooks
    add column request_id uuid,
    add column request_digest bytea,
    add constraint webhooks_request_key unique (user_id, request_id),
    add constraint webhooks_request_check check ((request_id is null) = (request_digest is null));
grant select (request_id, request_digest), insert (request_id, request_digest) on webhooks to pipeline_user;
