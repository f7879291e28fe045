-- name: begin_as
-- Opens a transaction and becomes the caller in one round trip. Both settings end with the transaction.
-- The values are a role from a fixed list, a canonical UUID, and claims of the call's origin without a character that needs
-- quoting, so they are safe in the text of a simple query.
begin; select set_config('role', 'pipeline_{role}', true), set_config('request.jwt.claims', '{{"sub":"{user_id}","role":"{role}"{origin}}}', true);

-- name: commit
-- Ends a transaction and with it the caller's role and claims.
commit;

-- name: rollback
-- Ends a failed transaction.
rollback;

-- name: settle
-- An empty statement, which ends the implicit transaction of a statement that was prepared and never run. asyncpg does
-- not end it; left open, it would keep its locks, and now() would return its time to the next caller.
select;

-- name: guard
-- Checks what must be true before a server answers: its login owns no table and cannot bypass row-level security;
-- row-level security is on and forced for every table; every policy checks the rows that are written as well as those
-- that are read; and for every privilege of a role on a table there is a policy.
-- Reads catalogue tables and none of their views: views wait for the locks of a migration.
select
    (select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = 'public' and c.relkind in ('r', 'p') and c.relname like 'lora\_%') as tables,
    (select coalesce(array_agg(c.relname::text order by c.relname), '{}')
     from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = 'public' and c.relkind in ('r', 'p') and not (c.relrowsecurity and c.relforcerowsecurity)) as unguarded,
    -- Views and functions with their owner's rights, and materialized views, bypass row-level security. Trigger functions
    -- cannot be called.
    (select coalesce(array_agg(around.name), '{}') from (
        select c.relname::text as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = 'public'
          and (c.relkind = 'm' or c.relkind = 'v' and not coalesce('security_invoker=true' = any(c.reloptions), false))
        union all
        select p.proname::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where n.nspname = 'public' and p.prosecdef and p.prorettype <> 'trigger'::regtype
    ) around) as ways_around,
    (select coalesce(array_agg(c.relname::text || '.' || p.polname::text order by 1), '{}')
     from pg_policy p join pg_class c on c.oid = p.polrelid join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = 'public' and p.polcmd in ('*', 'a', 'w') and p.polwithcheck is null) as unchecked,
    (select coalesce(array_agg(distinct c.relname::text || ' for ' || r.rolname), '{}')
     from pg_class c join pg_namespace n on n.oid = c.relnamespace
     cross join pg_roles r
     cross join (values ('select', 'r'), ('insert', 'a'), ('update', 'w')) as k (privilege, command)
     where n.nspname = 'public' and c.relkind in ('r', 'p')
       and r.rolname in ('pipeline_user', 'pipeline_worker', 'pipeline_service')
       and has_any_column_privilege(r.oid, c.oid, k.privilege)
       and not exists (
           select from pg_policy p
           where p.polrelid = c.oid and p.polcmd in ('*', k.command) and p.polroles && array[0, r.oid]
       )) as unruled,
    (select coalesce(array_agg(c.relname::text order by c.relname), '{}')
     from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_roles r on r.oid = c.relowner
     where n.nspname = 'public' and c.relkind in ('r', 'p') and r.rolname = session_user) as owned,
    (select r.rolsuper or r.rolbypassrls from pg_roles r where r.rolname = session_user) as above_the_law;

-- name: is_disabled
-- Returns whether a user may no longer sign in. Runs as the service's own login, which may read nothing else.
select exists (select from disabled_users where user_id = $1);

-- name: find_api_key
-- The key of a hash, expired ones included. Runs as the service's own login. `last_used_at` is written at most once a minute.
-- $2: claims of the call's origin, which the audit event of a use takes.
with origin as materialized (select set_config('request.jwt.claims', $2, true)),
found as (
    select k.id, k.user_id, k.role, k.scopes, k.expires_at, k.last_used_at from api_keys k cross join origin
    where k.key_hash = $1
),
used as (
    update api_keys set last_used_at = now()
    where id in (
        select id from found where expires_at > now() and coalesce(last_used_at < now() - interval '1 minute', true)
    )
)
select id, user_id, role, scopes, extract(epoch from expires_at)::float8 as expires_at from found;
