-- name: begin_as
-- Opens a transaction and becomes the caller in one round trip. Both settings end with the transaction.
-- The two values are a role from a fixed list and a canonical UUID, so they can stand in the text of a simple query.
begin; select set_config('role', 'pipeline_{role}', true), set_config('request.jwt.claims', '{{"sub":"{user_id}","role":"{role}"}}', true);

-- name: commit
-- Ends a transaction, and with it the caller's role and claims.
commit;

-- name: rollback
-- The same for a transaction that failed.
rollback;

-- name: settle
-- Does nothing, and so ends what was begun outside a transaction: asyncpg prepares a statement without ending that, and
-- whoever is interrupted before it runs leaves its locks, and the time that now() tells the next.
select;

-- name: guard
-- Reads catalogues alone, none of their views: those wait for whoever has locked a table, a migration for one.
-- What must hold before a server answers anybody: its login owns nothing and cannot step around row-level security,
-- which is on and forced for every table, every policy checks what is written as well as what is read, and whatever a
-- role may do to a table, a policy says with which rows.
select
    (select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = 'public' and c.relkind in ('r', 'p') and c.relname like 'lora\_%') as tables,
    (select coalesce(array_agg(c.relname::text order by c.relname), '{}')
     from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = 'public' and c.relkind in ('r', 'p') and not (c.relrowsecurity and c.relforcerowsecurity)) as unguarded,
    -- A view of its maker's rights, a copy of rows and a function of its maker's rights step around all of it. Nobody can
    -- call a trigger's function.
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
-- Whether a user may not sign in any more. Runs as the service's login, which may read nothing else.
select exists (select from disabled_users where user_id = $1);
