-- Creates a job, its first event and its notification: all or none, in one round trip. Triggers check the job (check_job.sql) and
-- write its audit event (write_audit_event.sql) and the notification's deliveries (write_webhook_deliveries.sql). `job` holds the
-- columns of new_jobs by name, null where it has none; `origin` the claims for the audit log. Returns the job, or the one that a
-- request with the same key created before; no row if the dataset is no longer ready or the user has `max_open_jobs` jobs that are
-- not final.
drop view if exists new_jobs;
-- What a creation sets; all other columns get their defaults. A column that is missing here is dropped without an error.
create view new_jobs with (security_invoker = true) as
select
    id, user_id, dataset_id, name, labels, preset_id, hyperparameters, gpu_config, base_model, training, provider, allow_oom_risk,
    priority, max_cost_usd, max_duration_seconds, client_estimated_cost, idempotency_key, request_digest, retried_from,
    estimated_total_cost, hourly_rate, storage_usd, quote_id, estimate, model_family, stack, forecast_p10_seconds, forecast_seconds,
    forecast_p90_seconds, forecast_overhead_seconds, forecast_correction, forecast_slopes, forecast_model, forecast_tokens, revision,
    max_attempts, total_epochs, total_steps
from lora_training_jobs;
grant insert on new_jobs to pipeline_user;
-- The same columns of the table.
do $$
begin
    execute (
        select format('grant insert (%s) on lora_training_jobs to pipeline_user', string_agg(quote_ident(attname), ', '))
        from pg_attribute
        where attrelid = 'new_jobs'::regclass and attnum > 0
    );
end $$;

create function create_job(caller uuid, job json, max_open_jobs bigint, origin text) returns setof job_details
language plpgsql rows 1
as $$
declare
    setting text;
    new_job new_jobs;
    -- As the column `queue_key` will have it.
    new_queue_key timestamp;
    ready record;
begin
    setting := set_config('role', 'pipeline_user', true);
    setting := set_config('request.jwt.claims', format('{"sub":"%s","role":"user"%s}', caller, origin), true);
    new_job := json_populate_record(null::new_jobs, job);
    new_job.id := gen_random_uuid();
    new_job.user_id := caller;
    new_job.revision := 1;
    new_queue_key := (now() at time zone 'UTC') - new_job.priority * interval '1 hour';
    -- One creation at a time for a user, so that two cannot both take the last place below the limit, and the second of two
    -- with the same key finds the job of the first.
    perform pg_advisory_xact_lock(hashtextextended('jobs of ' || caller, 0));
    if new_job.idempotency_key is not null then
        return query select * from job_details d where d.idempotency_key = new_job.idempotency_key;
        if found then
            return;
        end if;
    end if;
    select d.name, d.format, d.total_training_pairs, open.own_jobs_ahead into ready
    from lora_datasets d, (
        select
            count(*) as jobs,
            count(*) filter (
                where j.status = 'queued' and j.gpu_type = new_job.gpu_config ->> 'type'
                and (j.queue_key, j.id) < (new_queue_key, new_job.id)
            ) as own_jobs_ahead
        from lora_training_jobs j
        where j.user_id = (select caller_id()) and j.completed_at is null
    ) open
    where d.id = new_job.dataset_id and d.status = 'ready' and d.training_ready and d.deleted_at is null
    and (new_job.training ->> 'validation_dataset_id' is null or exists (
        select from lora_datasets v
        where v.id = (new_job.training ->> 'validation_dataset_id')::uuid
        and v.status = 'ready' and v.training_ready and v.deleted_at is null
    ))
    and open.jobs < max_open_jobs;
    if not found then
        return;
    end if;
    insert into new_jobs values (new_job.*);
    insert into job_events (job_id, user_id, revision, type, status, data)
    values (
        new_job.id, caller, new_job.revision, 'queued', 'queued',
        jsonb_build_object('current_stage', 'queued', 'attempt', 1, 'current_cost', 0)
    );
    insert into lora_notifications (user_id, type, title, message, priority, action_url, metadata)
    values (
        caller, 'job_queued', 'Training Job Queued',
        format(
            'Your training job %s has been queued and will start shortly',
            coalesce('"' || new_job.name || '"', 'for "' || ready.name || '"')
        ),
        'low', '/training/jobs/' || new_job.id,
        jsonb_strip_nulls(jsonb_build_object('job_id', new_job.id, 'job_name', new_job.name, 'dataset_name', ready.name))
    );
    return query
    select c.*, ready.name, ready.format, ready.total_training_pairs, false, ready.own_jobs_ahead
    from job_columns c where c.id = new_job.id;
end
$$;
-- It acts as any user and stores any price, so only the service may call it.
revoke execute on function create_job from public;
grant execute on function create_job to pipeline_jobs;
