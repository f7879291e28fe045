-- A page of a user's jobs with their number by status; one row without a job if the page is empty. A function, since taking the
-- caller's role, reading and ending the transaction are then one round trip. It runs with the rights of its caller; role and claims
-- end with the transaction. They are set by statements of their own, so that the next ones are planned for that role. Stable, so
-- that all of them read one snapshot.
--
-- Each plan node that returns all columns of a job costs as much as reading three jobs. So positions in the queue are looked up
-- beforehand, and only if a job waits, and the empty page is a statement of its own.
create view listed_jobs with (security_invoker = true) as
select null::jsonb as status_counts, d.* from job_details d;

create function list_jobs(
    caller uuid, statuses text[], with_labels text[], with_base_model text, search text, sort text, is_ascending boolean,
    page_limit bigint, page_offset bigint
) returns setof listed_jobs
language plpgsql stable rows 10
as $$
declare
    setting text;
    counts jsonb;
    ahead jsonb;
    page uuid[];
    first_created_at timestamptz := 'infinity';
    first_id uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
begin
    setting := set_config('role', 'pipeline_user', true);
    setting := set_config('request.jwt.claims', format('{"sub":"%s","role":"user"}', caller), true);
    if sort = 'created' and not is_ascending and with_labels = '{}' and with_base_model is null and search = '' then
        -- The default order without filters: counted and cut in the index.
        select jsonb_object_agg(status, number) into counts
        from (select status, count(*) as number from lora_training_jobs where deleted_at is null group by status) s;
        if counts ? 'queued' then
            ahead := (select jsonb_object_agg(id, own_jobs_ahead) from own_queue);
        end if;
        if page_offset > 0 then
            select created_at, id into first_created_at, first_id from lora_training_jobs
            where deleted_at is null and status = any(statuses)
            order by created_at desc, id desc
            limit 1 offset page_offset;
        end if;
        return query
        select
            counts, c.*, d.name, d.format, d.total_training_pairs, d.deleted_at is not null,
            (ahead ->> c.id::text)::bigint
        from (
            select * from job_columns
            where status = any(statuses) and (created_at, id) <= (first_created_at, first_id)
            order by created_at desc, id desc
            limit page_limit
        ) c join lora_datasets d on d.id = c.dataset_id
        order by c.created_at desc, c.id desc;
    else
        with matching as materialized (
            select
                j.id, j.status, j.created_at,
                lower(case sort
                    when 'name' then coalesce(j.name, d.name)
                    when 'dataset' then d.name
                    when 'base_model' then j.base_model
                end) as text_key,
                case sort
                    when 'status' then array_position(
                        array['queued', 'initializing', 'running', 'completed', 'failed', 'cancelled'], j.status
                    )
                    when 'cost' then j.current_cost
                    when 'estimated_cost' then j.estimated_total_cost
                    when 'progress' then j.progress
                    when 'duration' then j.billed_seconds
                    when 'created' then extract(epoch from j.created_at)
                end as number_key
            from job_columns j join lora_datasets d on d.id = j.dataset_id
            where j.labels @> with_labels
            and (with_base_model is null or j.base_model = with_base_model)
            and (strpos(lower(j.name), lower(search)) > 0 or strpos(lower(d.name), lower(search)) > 0 or search = '')
        )
        select
            (select jsonb_object_agg(status, number) from (
                select status, count(*) as number from matching group by status
            ) s),
            array(
                select id from matching
                where status = any(statuses)
                order by
                    case when is_ascending then text_key end nulls last,
                    case when not is_ascending then text_key end desc nulls last,
                    case when is_ascending then number_key end nulls last,
                    case when not is_ascending then number_key end desc nulls last,
                    created_at desc, id desc
                limit page_limit offset page_offset
            )
        into counts, page;
        return query
        select counts, d.* from job_details d where d.id = any(page) order by array_position(page, d.id);
    end if;
    if not found then
        return query select counts, d.* from (select) one left join job_details d on false;
    end if;
end
$$;
-- It acts as any user, so only the service may call it.
revoke execute on function list_jobs from public;
grant execute on function list_jobs to pipeline_jobs;
