-- What creating a job takes, answers and holds is as in 007. That read the job again through job_details; here its insertion
-- answers with it. Whoever creates has the user's lock, so the job that a key made before is there to be found; where another
-- statement made it, the constraint says so.
create or replace function create_job(
    caller uuid, dataset uuid, preset_id text, hyperparameters jsonb, gpu_config jsonb, total_epochs integer,
    total_steps bigint, estimated_total_cost numeric, client_estimated_cost numeric, hourly_rate numeric, request_id uuid,
    request_digest bytea, max_cost_usd numeric, max_duration_seconds bigint, priority integer, retried_from uuid,
    max_attempts integer, most bigint, base_model text, training jsonb, provider text, allow_oom_risk boolean,
    quote_id uuid, estimate bytea, model_family text, stack text, forecast_p10_seconds double precision,
    forecast_seconds double precision, forecast_p90_seconds double precision, forecast_overhead_seconds double precision,
    forecast_correction double precision, forecast_slopes double precision[], forecast_model text
) returns setof job_details
language plpgsql rows 1
as $$
#variable_conflict use_column
declare
    done text;
    key uuid := request_id;
    wanted_type text := gpu_config ->> 'type';
    new_id uuid := gen_random_uuid();
    -- As the column `place` has it.
    new_place timestamp := (now() at time zone 'UTC') - priority * interval '1 hour';
    ready record;
    job job_details;
begin
    done := set_config('role', 'pipeline_user', true);
    done := set_config('request.jwt.claims', format('{"sub":"%s","role":"user"}', caller), true);
    -- One creation at a time for a user, so that two cannot both take the last place below the limit.
    perform pg_advisory_xact_lock(hashtextextended('jobs of ' || caller, 0));
    if key is not null then
        return query select * from job_details where request_id = key;
        if found then
            return;
        end if;
    end if;
    select d.name, d.format, d.total_training_pairs, open.ahead into ready
    from lora_datasets d, (
        select
            count(*) as jobs,
            count(*) filter (
                where status = 'queued' and gpu_type = wanted_type and (place, id) < (new_place, new_id)
            ) as ahead
        from lora_training_jobs
        where user_id = (select caller_id()) and completed_at is null
    ) open
    where d.id = dataset and d.status = 'ready' and d.training_ready and d.deleted_at is null and open.jobs < most;
    if not found then
        return;
    end if;
    insert into lora_training_jobs as j (
        id, user_id, dataset_id, preset_id, hyperparameters, gpu_config, total_epochs, total_steps,
        estimated_total_cost, client_estimated_cost, hourly_rate, request_id, request_digest,
        max_cost_usd, max_duration_seconds, priority, retried_from, max_attempts, revision, base_model, training,
        provider, allow_oom_risk, quote_id, estimate, model_family, stack, forecast_p10_seconds, forecast_seconds,
        forecast_p90_seconds, forecast_overhead_seconds, forecast_correction, forecast_slopes, forecast_model
    )
    values (
        new_id, caller, dataset, preset_id, hyperparameters, gpu_config, total_epochs, total_steps,
        estimated_total_cost, client_estimated_cost, hourly_rate, request_id, request_digest,
        max_cost_usd, max_duration_seconds, priority, retried_from, max_attempts, 1, base_model, training,
        provider, allow_oom_risk, quote_id, estimate, model_family, stack, forecast_p10_seconds, forecast_seconds,
        forecast_p90_seconds, forecast_overhead_seconds, forecast_correction, forecast_slopes, forecast_model
    )
    -- The columns of job_details, in its order.
    returning
        j.id, j.user_id, j.dataset_id, j.preset_id, j.hyperparameters, j.gpu_config, j.gpu_type, j.gpu_count, j.status,
        j.current_stage, j.progress, j.current_epoch, j.total_epochs, j.current_step, j.total_steps, j.current_metrics,
        j.queued_at, j.started_at, j.completed_at, j.estimated_total_cost, j.client_estimated_cost, j.hourly_rate,
        j.current_cost, j.final_cost, j.error_message, j.retry_count, j.external_job_id, j.artifact_id, j.created_at,
        j.updated_at, j.request_id, j.request_digest, j.priority, j.max_cost_usd, j.max_duration_seconds,
        j.status_reason, j.revision, j.attempt, j.max_attempts, j.retried_from, j.artifact_uri, j.trainer,
        j.billed_seconds, null::double precision, ready.ahead, ready.name, ready.format, ready.total_training_pairs,
        j.base_model, j.training, j.provider, j.allow_oom_risk, j.estimate
    into job;
    insert into job_events (job_id, user_id, revision, type, status, data)
    values (
        job.id, caller, job.revision, 'queued', job.status,
        jsonb_build_object('current_stage', job.current_stage, 'attempt', job.attempt, 'current_cost', job.current_cost)
    );
    insert into lora_notifications (user_id, type, title, message, priority, action_url, metadata)
    values (
        caller, 'job_queued', 'Training Job Queued',
        format('Your training job for "%s" has been queued and will start shortly', ready.name),
        'low', '/training/jobs/' || job.id, jsonb_build_object('job_id', job.id, 'dataset_name', ready.name)
    );
    return next job;
end
$$;
