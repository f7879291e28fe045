-- What is asked most as one function each: becoming the caller, the work and the end of the transaction are one round trip
-- where they were three.

-- What a page's rows look like: what a list shows of a job, and how many jobs there are.
create view listed_jobs with (security_invoker = true) as
select
    0::bigint as total,
    id, user_id, dataset_id, dataset_name, dataset_format, dataset_pairs, preset_id, hyperparameters, gpu_config, status,
    current_stage, progress, current_epoch, total_epochs, current_step, total_steps, current_metrics, queued_at,
    started_at, completed_at, estimated_total_cost, client_estimated_cost, current_cost, final_cost, error_message,
    retry_count, external_job_id, artifact_id, created_at, updated_at, priority, max_cost_usd, max_duration_seconds,
    status_reason, revision, attempt, max_attempts, retried_from, artifact_uri, trainer, billed_seconds, seconds_left,
    own_ahead, base_model, training, provider, allow_oom_risk, estimate
from job_details;

-- A page of a user's jobs, newest first, and how many there are, from one snapshot: a row without a job where the page is
-- empty. It runs with its caller's rights, so row-level security holds in it as outside; role and claims end with the
-- transaction. They are set by statements of their own, so that the next is planned for that role and no other.
create function list_jobs(caller uuid, statuses text[], most bigint, skipped bigint) returns setof listed_jobs
language plpgsql rows 10
as $$
declare
    done text;
begin
    done := set_config('role', 'pipeline_user', true);
    done := set_config('request.jwt.claims', format('{"sub":"%s","role":"user"}', caller), true);
    return query
    select
        counted.total,
        j.id, j.user_id, j.dataset_id, j.dataset_name, j.dataset_format, j.dataset_pairs, j.preset_id,
        j.hyperparameters, j.gpu_config, j.status, j.current_stage, j.progress, j.current_epoch,
        j.total_epochs, j.current_step, j.total_steps, j.current_metrics, j.queued_at, j.started_at,
        j.completed_at, j.estimated_total_cost, j.client_estimated_cost, j.current_cost, j.final_cost,
        j.error_message, j.retry_count, j.external_job_id, j.artifact_id, j.created_at, j.updated_at,
        j.priority, j.max_cost_usd, j.max_duration_seconds, j.status_reason, j.revision, j.attempt,
        j.max_attempts, j.retried_from, j.artifact_uri, j.trainer, j.billed_seconds, j.seconds_left,
        case
            when j.status = 'queued' then ((
                -- Not j.own_ahead, which counts for each job anew. This asks for nothing of `j`: it is done once a page, and
                -- only where a job on it waits. What waits is not finished: said for the index of what is not.
                select jsonb_object_agg(id, ahead) from (
                    select id, row_number() over (partition by gpu_type order by place, id) - 1 as ahead
                    from lora_training_jobs where status = 'queued' and completed_at is null
                ) queue
            ) ->> j.id::text)::bigint
        end,
        j.base_model, j.training, j.provider, j.allow_oom_risk, j.estimate
    from (select count(*) as total from lora_training_jobs where status = any(statuses)) counted
    left join (
        (
            -- The page is cut before its details are looked up.
            select id from lora_training_jobs
            where status = any(statuses)
            order by created_at desc, id desc
            limit most offset skipped
        ) page
        join job_details j on j.id = page.id
    ) on true
    order by j.created_at desc, j.id desc;
end
$$;

-- Job, event and notification, all or none. No row where the dataset is not ready any more or the user has `most` open jobs;
-- where a request of the same key made a job before, that one.
create function create_job(
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
    ready record;
    job record;
begin
    done := set_config('role', 'pipeline_user', true);
    done := set_config('request.jwt.claims', format('{"sub":"%s","role":"user"}', caller), true);
    -- One creation at a time for a user, so that two cannot both take the last place below the limit.
    perform pg_advisory_xact_lock(hashtextextended('jobs of ' || caller, 0));
    select id, name into ready
    from lora_datasets
    where id = dataset and status = 'ready' and training_ready and deleted_at is null
    and (
        select count(*) from lora_training_jobs
        where user_id = (select caller_id()) and completed_at is null
    ) < most;
    if not found then
        return;
    end if;
    -- `do update` waits for a rival with the same key and returns its row, where `do nothing` would return none.
    insert into lora_training_jobs (
        user_id, dataset_id, preset_id, hyperparameters, gpu_config, total_epochs, total_steps,
        estimated_total_cost, client_estimated_cost, hourly_rate, request_id, request_digest,
        max_cost_usd, max_duration_seconds, priority, retried_from, max_attempts, revision, base_model, training,
        provider, allow_oom_risk, quote_id, estimate, model_family, stack, forecast_p10_seconds, forecast_seconds,
        forecast_p90_seconds, forecast_overhead_seconds, forecast_correction, forecast_slopes, forecast_model
    )
    values (
        caller, dataset, preset_id, hyperparameters, gpu_config, total_epochs, total_steps,
        estimated_total_cost, client_estimated_cost, hourly_rate, request_id, request_digest,
        max_cost_usd, max_duration_seconds, priority, retried_from, max_attempts, 1, base_model, training,
        provider, allow_oom_risk, quote_id, estimate, model_family, stack, forecast_p10_seconds, forecast_seconds,
        forecast_p90_seconds, forecast_overhead_seconds, forecast_correction, forecast_slopes, forecast_model
    )
    on conflict on constraint lora_training_jobs_request_key do update set request_id = excluded.request_id
    returning id, revision, status, current_stage, attempt, current_cost, (xmax = 0) as created into job;
    if job.created then
        insert into job_events (job_id, user_id, revision, type, status, data)
        values (
            job.id, caller, job.revision, 'queued', job.status,
            jsonb_build_object(
                'current_stage', job.current_stage, 'attempt', job.attempt, 'current_cost', job.current_cost
            )
        );
        insert into lora_notifications (user_id, type, title, message, priority, action_url, metadata)
        values (
            caller, 'job_queued', 'Training Job Queued',
            format('Your training job for "%s" has been queued and will start shortly', ready.name),
            'low', '/training/jobs/' || job.id,
            jsonb_build_object('job_id', job.id, 'dataset_name', ready.name)
        );
    end if;
    return query select * from job_details where id = job.id;
end
$$;
-- They take prices as they are told: they are the service's to call.
revoke execute on function list_jobs, create_job from public;
grant execute on function list_jobs, create_job to pipeline_service;
