-- name: begin_as
-- Opens a transaction and becomes the caller in one round trip. Both settings end with the transaction.
-- The values are a role from a fixed list, a canonical UUID, and claims of the call's origin without a character that needs
-- quoting, so they are safe in the text of a simple query.
begin; select set_config('role', 'pipeline_{role}', true), set_config('request.jwt.claims', '{{"sub":"{user_id}","role":"{caller_role}"{origin}}}', true);

-- name: commit
-- Ends a transaction and with it the caller's role and claims.
commit;

-- name: rollback
-- Ends a failed transaction.
rollback;

-- name: settle
-- An empty statement. It ends the implicit transaction of a statement that was prepared and never run, which asyncpg leaves
-- open: the transaction would keep its locks, and the next caller's now() would be its time.
select;

-- name: session
-- Returns what shows whether there is a pooler, which gives clients its own process numbers, and whether the session has our settings.
select pg_backend_pid() as process, current_setting('statement_timeout') as statement_timeout;

-- name: guard
-- Checks the database before a server uses it: the login owns no table and cannot bypass row-level security; row-level
-- security is on and forced for every table; every policy also checks rows that are written; and every privilege of a role on a
-- table has a policy.
-- Reads catalogue tables and not their views: views wait for the locks of a migration.
select
    (select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = 'public' and c.relkind in ('r', 'p') and c.relname like 'lora\_%') as tables,
    (select coalesce(array_agg(c.relname::text order by c.relname), '{}')
     from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = 'public' and c.relkind in ('r', 'p') and not (c.relrowsecurity and c.relforcerowsecurity)) as not_forced,
    -- Views and functions with their owner's rights, and materialized views, bypass row-level security. Trigger functions
    -- cannot be called.
    (select coalesce(array_agg(bypass.name), '{}') from (
        select c.relname::text as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = 'public'
          and (c.relkind = 'm' or c.relkind = 'v' and not coalesce('security_invoker=true' = any(c.reloptions), false))
        union all
        select p.proname::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where n.nspname = 'public' and p.prosecdef and p.prorettype <> 'trigger'::regtype
    ) bypass) as bypasses,
    (select coalesce(array_agg(c.relname::text || '.' || p.polname::text order by 1), '{}')
     from pg_policy p join pg_class c on c.oid = p.polrelid join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = 'public' and p.polcmd in ('*', 'a', 'w') and p.polwithcheck is null) as not_checked,
    (select coalesce(array_agg(distinct c.relname::text || ' for ' || r.rolname), '{}')
     from pg_class c join pg_namespace n on n.oid = c.relnamespace
     cross join pg_roles r
     cross join (values ('select', 'r'), ('insert', 'a'), ('update', 'w')) as k (privilege, command)
     where n.nspname = 'public' and c.relkind in ('r', 'p')
       and r.rolname in (
           'pipeline_user', 'pipeline_quoter', 'pipeline_worker', 'pipeline_system', 'pipeline_sender', 'pipeline_outbox',
           'pipeline_estimator', 'pipeline_jobs', 'pipeline_webhooks'
       )
       and has_any_column_privilege(r.oid, c.oid, k.privilege)
       and not exists (
           select from pg_policy p
           where p.polrelid = c.oid and p.polcmd in ('*', k.command) and p.polroles && array[0, r.oid]
       )) as without_policy,
    (select coalesce(array_agg(c.relname::text order by c.relname), '{}')
     from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_roles r on r.oid = c.relowner
     where n.nspname = 'public' and c.relkind in ('r', 'p') and r.rolname = session_user) as login_owns,
    (select r.rolsuper or r.rolbypassrls from pg_roles r where r.rolname = session_user) as login_bypasses;

-- name: access
-- Lists everything that decides who may read and write what, one line each: row-level security of each table, policies, grants to
-- our roles and to everybody, views, functions, triggers, and our roles. Roles belong to the cluster: ours are those that this
-- database refers to. Reads catalogue tables only, as the guard does. $1: the schema.
with our_role as (
    select oid, rolname::text as name, rolsuper or rolbypassrls or rolcreaterole or rolcreatedb as is_powerful, rolinherit
    from pg_roles
    where rolname like 'pipeline\_%' and exists (
        select from pg_shdepend d
        where d.refclassid = 'pg_authid'::regclass and d.refobjid = pg_roles.oid
        and d.dbid = (select oid from pg_database where datname = current_database())
    )
    union all
    select 0, 'public', false, false
), relation as (
    select c.oid, c.relname::text as name, c.relkind, c.relrowsecurity, c.relforcerowsecurity, c.relacl, c.reloptions, c.relowner
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = $1::text and c.relkind in ('r', 'p', 'v', 'm')
)
select 'server version ' || current_setting('server_version_num')::integer / 10000 as line
union all
select format(
    'table %s: row security %s%s', name, case when relrowsecurity then 'on' else 'off' end,
    case when relforcerowsecurity then ', forced' else '' end
)
from relation where relkind in ('r', 'p')
union all
select format('view %s (%s): %s', name, array_to_string(reloptions, ', '), md5(pg_get_viewdef(oid)))
from relation where relkind in ('v', 'm')
union all
select format(
    '%s policy %s on %s for %s to %s using (%s) with check (%s)',
    case when p.polpermissive then 'permissive' else 'restrictive' end, p.polname, r.name,
    case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete' else 'all' end,
    (
        select string_agg(coalesce(a.rolname, 'public'), ', ' order by a.rolname)
        from unnest(p.polroles) as role (oid) left join pg_roles a on a.oid = role.oid
    ),
    pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)
)
from pg_policy p join relation r on r.oid = p.polrelid
union all
select format('grant %s on %s to %s%s', lower(g.privilege_type), r.name, o.name, case when g.is_grantable then ' with grant option' end)
from relation r cross join aclexplode(r.relacl) g join our_role o on o.oid = g.grantee
where g.grantee <> r.relowner
union all
select format(
    'grant %s (%s) on %s to %s', lower(g.privilege_type), string_agg(a.attname, ', ' order by a.attname), r.name, o.name
)
from relation r join pg_attribute a on a.attrelid = r.oid cross join aclexplode(a.attacl) g join our_role o on o.oid = g.grantee
where g.grantee <> r.relowner
group by g.privilege_type, r.name, o.name
union all
select format(
    'function %s(%s)%s for %s: %s', p.proname, pg_get_function_identity_arguments(p.oid),
    case when p.prosecdef then ' with the rights of ' || (select rolname from pg_roles where oid = p.proowner) end,
    coalesce((
        select string_agg(o.name, ', ' order by o.name)
        from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) g join our_role o on o.oid = g.grantee
    ), 'nobody'),
    md5(p.prosrc)
)
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname = $1::text and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
union all
select format('trigger %s: %s', case when t.tgenabled = 'O' then 'on' else 'off' end, pg_get_triggerdef(t.oid, true))
from pg_trigger t join relation r on r.oid = t.tgrelid
where not t.tgisinternal
union all
select format(
    'role %s%s%s becomes %s', o.name, case when o.is_powerful then ', powerful,' end, case when o.rolinherit then ', inherits,' end,
    coalesce((
        select string_agg(r.rolname, ', ' order by r.rolname)
        from pg_auth_members m join pg_roles r on r.oid = m.roleid where m.member = o.oid
    ), 'nobody')
)
from our_role o where o.oid <> 0
order by line;

-- name: recorded_access
-- The same lines as the files of the last migration made them.
select line from pipeline_internal.access;

-- name: is_disabled
-- Returns whether a user may no longer sign in. Runs as the server's own login.
select exists (select from disabled_users where user_id = $1);

-- name: find_api_key
-- The API key of a hash, also if it has expired. Runs as the server's own login. `last_used_at` is written at most once a minute.
-- $2: claims of the call's origin, for the audit event of the use.
with origin as materialized (select set_config('request.jwt.claims', $2, true)),
api_key as (
    select k.id, k.user_id, k.role, k.scopes, k.expires_at, k.last_used_at from api_keys k cross join origin
    where k.key_hash = $1
),
used as (
    update api_keys set last_used_at = now()
    where id in (
        select id from api_key where expires_at > now() and coalesce(last_used_at < now() - interval '1 minute', true)
    )
)
select id, user_id, role, scopes, extract(epoch from expires_at)::float8 as expires_at from api_key;
