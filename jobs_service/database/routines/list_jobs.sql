-- A page of a user's jobs, newest first, with their number in all, from one snapshot: one row without a job where the page is
-- empty. A function, since becoming the caller, reading and ending the transaction are then one round trip. It runs with the
-- rights of its caller; role and claims end with the transaction. They are set by statements of their own, so that the next
-- one is planned for that role.
create view listed_jobs with (security_invoker = true) as
select 0::bigint as total, d.* from job_details d;

create function list_jobs(caller uuid, statuses text[], page_limit bigint, page_offset bigint) returns setof listed_jobs
language plpgsql rows 10
as $$
declare
    setting text;
begin
    setting := set_config('role', 'pipeline_user', true);
    setting := set_config('request.jwt.claims', format('{"sub":"%s","role":"user"}', caller), true);
    return query
    select counted.total, d.*
    from (select count(*) as total from lora_training_jobs where status = any(statuses)) counted
    -- An array, so that the page is cut once and before its details are looked up.
    left join job_details d on d.id = any(array(
        select id from lora_training_jobs
        where status = any(statuses)
        order by created_at desc, id desc
        limit page_limit offset page_offset
    ))
    order by d.created_at desc, d.id desc;
end
$$;
-- It becomes whichever user it is told, so only the service may call it.
revoke execute on function list_jobs from public;
grant execute on function list_jobs to pipeline_service;
