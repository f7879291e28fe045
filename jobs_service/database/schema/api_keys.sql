-- API keys: bearer tokens of programs, stored as hashes.

create table api_keys (
    id uuid not null default gen_random_uuid(),
    user_id uuid not null,
    -- Role of the token that created the key: a key never has more rights than its creator.
    role text not null,
    name text not null,
    -- SHA-256 of the key.
    key_hash bytea not null,
    -- First characters of the key, shown to recognize it by.
    prefix text not null,
    scopes text[] not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null default now() + interval '90 days',
    last_used_at timestamptz,
    constraint api_keys_pkey primary key (id),
    constraint api_keys_hash_key unique (key_hash),
    constraint api_keys_hash_check check (octet_length(key_hash) = 32),
    constraint api_keys_name_check check (length(name) between 1 and 100),
    constraint api_keys_prefix_check check (length(prefix) <= 7),
    constraint api_keys_expiry_check check (expires_at <= created_at + interval '367 days'),
    constraint api_keys_scopes_check check (
        cardinality(scopes) > 0
        and case role when 'user' then scopes <@ array['read', 'jobs'] when 'worker' then scopes = array['worker'] end is true
    )
);
create index api_keys_user_idx on api_keys (user_id, created_at desc, id desc);

alter table api_keys enable row level security;
alter table api_keys force row level security;

create policy own_api_keys on api_keys to pipeline_user
using (user_id = (select caller_id()) and role = 'user') with check (user_id = (select caller_id()) and role = 'user');
create policy own_worker_keys on api_keys to pipeline_worker
using (user_id = (select caller_id()) and role = 'worker') with check (user_id = (select caller_id()) and role = 'worker');
-- Hashes are compared by the look-up alone; an owner writes one and reads none.
grant select (id, user_id, role, name, prefix, scopes, created_at, expires_at, last_used_at), delete
on api_keys to pipeline_user, pipeline_worker;
grant insert (user_id, role, name, key_hash, prefix, scopes, expires_at) on api_keys to pipeline_user, pipeline_worker;

-- The look-up of a key that a call carries, by the servers' own logins: its caller is not known yet.
create policy find_api_keys on api_keys for select to pipeline_estimator, pipeline_jobs using (true);
create policy use_api_keys on api_keys for update to pipeline_estimator, pipeline_jobs using (true) with check (true);
grant select (id, user_id, role, scopes, key_hash, expires_at, last_used_at), update (last_used_at)
on api_keys to pipeline_estimator, pipeline_jobs;

create policy expired_api_keys on api_keys for select to pipeline_system using (true);
create policy delete_expired_api_keys on api_keys for delete to pipeline_system using (expires_at < now());
grant select (id, expires_at), delete on api_keys to pipeline_system;
