-- name: report_progress
-- Stores a report and renews the lease. The first epoch or step makes the job running; within an attempt neither goes back.
-- A column that equals `now()` was set by this transaction.
update lora_training_jobs set
    status = case when $4::integer > 0 or $5::bigint > 0 then 'running' else status end,
    started_at = coalesce(started_at, case when $4 > 0 or $5 > 0 then now() end),
    running_since = coalesce(running_since, case when $4 > 0 or $5 > 0 then now() end),
    -- From the end of the first step on: it loads kernels, and says nothing of the others. After a checkpoint a first report may
    -- come before it.
    measured_since = case
        when running_since is null then case when $5 > 0 and checkpoint_step is null then now() end
        else coalesce(measured_since, case when $5 > current_step then now() end)
    end,
    measured_from_step = case
        when running_since is null then case when $5 > 0 and checkpoint_step is null then $5 end
        else coalesce(measured_from_step, case when $5 > current_step then $5 end)
    end,
    current_stage = coalesce(
        nullif($3, ''), case when ($4 > 0 or $5 > 0) and running_since is null then 'training' else current_stage end
    ),
    current_epoch = case when running_since is null then $4 else greatest(current_epoch, $4) end,
    current_step = case when running_since is null then $5 else greatest(current_step, $5) end,
    progress = 100.0 * case when running_since is null then $5 else greatest(current_step, $5) end
        / greatest(total_steps, 1),
    current_metrics = case
        when running_since is not null and $5 < current_step then current_metrics
        -- Trainers choose the names of metrics: at most 64 are kept.
        when (select count(*) from jsonb_object_keys(current_metrics || $6::jsonb)) > 64 then $6
        else current_metrics || $6
    end,
    external_job_id = coalesce(nullif($7, ''), external_job_id),
    checkpoint_uri = coalesce($9, checkpoint_uri), checkpoint_step = coalesce($10, checkpoint_step),
    waiting_message = coalesce(nullif($13, ''), waiting_message),
    billed_from = coalesce(
        billed_from,
        case when $4 > 0 or $5 > 0 or coalesce(nullif($3, ''), current_stage) <> 'waiting' then now() end
    ),
    lease_expires_at = clock_timestamp() + $8,
    revision = revision + 1, updated_at = now()
where id = $1 and lease_token = $2 and lease_expires_at > clock_timestamp() and status in ('initializing', 'running')
returning
    id, lease_expires_at as expires_at, current_cost,
    status = 'running' and running_since = now() as started, started_at = now() as first_started,
    coalesce(current_cost >= max_cost_usd or billed_seconds >= max_duration_seconds, false) as over_limit,
    current_step - measured_from_step >= $11::bigint and updated_at - measured_since >= $14::interval
    and current_step < total_steps and (
        reforecast is null or ((reforecast ->> 'progress')::double precision < $12 and progress >= $12)
    ) as reforecast_due,
    seconds_to_limit(
        current_cost, hourly_rate, max_cost_usd, billed_seconds, max_duration_seconds
    ) as seconds_to_limit;

-- name: measured_speed
-- Progress and speed of a running job, its first forecast, and the notifications about forecasts that its owner got.
select
    total_steps, current_step, current_step - measured_from_step as measured_steps,
    extract(epoch from updated_at - measured_since)::double precision as measured_seconds, billed_seconds, hourly_rate,
    storage_usd, max_cost_usd, max_duration_seconds, simulated, estimate,
    reforecast_notifications
from lora_training_jobs
where id = $1;

-- name: store_reforecast
-- Stores a new forecast of a running job, in the transaction of its report.
update lora_training_jobs set
    reforecast = $2::jsonb || jsonb_build_object('created_at', now()), reforecast_notifications = reforecast_notifications || $3::text[],
    revision = revision + 1, updated_at = now()
where id = $1;

-- name: get_lease
-- The state of a lease; no row once it is over.
select lease_expires_at as expires_at, billed_from is null as waiting from lora_training_jobs
where id = $1 and lease_token = $2 and lease_expires_at > clock_timestamp() and status in ('initializing', 'running');

-- name: complete_job
-- Running to completed. `duration_ratio`: duration of a job without retries, divided by the median of its forecast.
update lora_training_jobs set
    status = 'completed', current_stage = 'completed', progress = 100,
    current_metrics = case
        when (select count(*) from jsonb_object_keys(current_metrics || $5::jsonb)) > 64 then $5
        else current_metrics || $5
    end,
    artifact_uri = nullif($3, ''), artifact_id = $4, artifact_size = $9, result_step = $8, measurements = $7, software = $10,
    peak_memory_gib = $6, trained_tokens = $11, checkpoint_uri = null, checkpoint_step = null, error_message = null, status_reason = null,
    lease_expires_at = null, completed_at = now(), revision = revision + 1, updated_at = now()
where id = $1 and lease_token = $2 and lease_expires_at > clock_timestamp() and status = 'running'
returning
    id, simulated, credential, final_cost, case
        when not simulated and retry_count = 0
        then extract(epoch from completed_at - started_at)::double precision / forecast_seconds
    end as duration_ratio;

-- name: fail_job
-- To queued if the error is retryable and an attempt is left, else to failed.
update lora_training_jobs set
    status = case when $4 and attempt < max_attempts then 'queued' else 'failed' end,
    current_stage = case when $4 and attempt < max_attempts then 'queued' else 'failed' end,
    completed_at = case when $4 and attempt < max_attempts then null else now() end,
    attempt = case when $4 and attempt < max_attempts then attempt + 1 else attempt end,
    retry_count = case when $4 and attempt < max_attempts then attempt else retry_count end,
    error_message = $3, status_reason = $5, measurements = $6,
    lease_expires_at = null, revision = revision + 1, updated_at = now()
where id = $1 and lease_token = $2 and lease_expires_at > clock_timestamp() and status in ('initializing', 'running')
returning id, status, credential, final_cost;

-- name: release_job
-- To queued without losing an attempt. Also returns the trainer's name and the seconds of the lease.
update lora_training_jobs set
    status = 'queued', current_stage = 'queued', status_reason = 'released',
    lease_expires_at = null, revision = revision + 1, updated_at = now()
where id = $1 and lease_token = $2 and lease_expires_at > clock_timestamp() and status in ('initializing', 'running')
returning id, trainer, extract(epoch from now() - lease_started_at)::double precision as lease_seconds;

-- name: cancel_job
-- From any state that is not final. Ends the lease; `had_lease`: whether there was one.
update lora_training_jobs j set
    status = 'cancelled', current_stage = 'cancelled', status_reason = 'cancelled_by_owner',
    lease_expires_at = null, completed_at = now(), revision = revision + 1, updated_at = now()
where id = $1 and status in ('queued', 'initializing', 'running')
returning id, (select before.lease_expires_at is not null from lora_training_jobs before where before.id = j.id) as had_lease,
    credential, final_cost;

-- name: expire_leases
-- To queued for the next attempt, or to failed after the last one. A job that a scheduler has not started loses no attempt: it is
-- released. A report may renew a lease at the same moment, so both conditions are checked again once the row is locked. Several
-- sweepers skip each other's rows.
with expired as (
    select id, current_stage <> 'waiting' or billed_from is not null as has_started from lora_training_jobs
    where status in ('initializing', 'running') and lease_expires_at <= clock_timestamp()
    limit $1
    for update skip locked
)
update lora_training_jobs j set
    status = case when has_started and attempt >= max_attempts then 'failed' else 'queued' end,
    current_stage = case when has_started and attempt >= max_attempts then 'failed' else 'queued' end,
    completed_at = case when has_started and attempt >= max_attempts then now() end,
    error_message = case
        when has_started then format('The trainer did not report in time (attempt %s of %s).', attempt, max_attempts)
    end,
    attempt = case when has_started then least(attempt + 1, max_attempts) else attempt end,
    retry_count = case when has_started and attempt < max_attempts then attempt else retry_count end,
    status_reason = case when has_started then 'lease_expired' else 'released' end,
    lease_expires_at = null, revision = revision + 1, updated_at = now()
from expired
where j.id = expired.id and j.status in ('initializing', 'running') and j.lease_expires_at <= clock_timestamp()
returning j.id, j.status, j.status_reason, j.credential, j.final_cost;

-- name: follow_clock
-- After the database's clock was set back, times of leases are in the future. They are moved back, the latest one to now, so
-- that a lease ends within its length from now and is billed for its real duration.
with ahead as (
    select id, greatest(updated_at, lease_started_at, billed_from, running_since, measured_since) - clock_timestamp() as step
    from lora_training_jobs
    where status in ('initializing', 'running')
    and greatest(updated_at, lease_started_at, billed_from, running_since, measured_since) > clock_timestamp() + interval '1 second'
    limit $1
    for update skip locked
)
update lora_training_jobs j set
    -- A report may have set these two by the new clock since.
    lease_expires_at = case when updated_at > clock_timestamp() then lease_expires_at - step else lease_expires_at end,
    updated_at = case when updated_at > clock_timestamp() then updated_at - step else updated_at end,
    lease_started_at = lease_started_at - step, billed_from = billed_from - step, running_since = running_since - step,
    measured_since = measured_since - step
from ahead
where j.id = ahead.id
returning step;

-- name: warn_of_cost
-- Once for each job, at 80 % of its cost limit. $2: the job; null: all.
with near as (
    select j.id
    from leased_job_costs c join lora_training_jobs j on j.id = c.id
    where not c.cost_warned and c.cost >= 0.8 * c.max_cost_usd and ($2::uuid is null or c.id = $2)
    limit $1
    for update of j skip locked
)
update lora_training_jobs j set
    cost_warned = true, revision = revision + 1, updated_at = now()
from near
where j.id = near.id and j.status in ('initializing', 'running') and not j.cost_warned
returning j.id;

-- name: stop_at_limits
-- To failed, with the limit as its reason, at the owner's limit of cost or time. $2: the job; null: all.
with over as (
    select j.id, coalesce(c.cost >= c.max_cost_usd, false) as by_cost
    from leased_job_costs c join lora_training_jobs j on j.id = c.id
    where (c.cost >= c.max_cost_usd or c.seconds >= c.max_duration_seconds) and ($2::uuid is null or c.id = $2)
    limit $1
    for update of j skip locked
)
update lora_training_jobs j set
    status = 'failed', current_stage = 'failed',
    status_reason = case when by_cost then 'cost_limit' else 'duration_limit' end,
    error_message = case
        when by_cost then format('Stopped at its cost limit of $%s.', trim_scale(max_cost_usd))
        else format('Stopped at its time limit of %s seconds.', max_duration_seconds)
    end,
    lease_expires_at = null, completed_at = now(), revision = revision + 1, updated_at = now()
from over
where j.id = over.id and j.status in ('initializing', 'running')
returning j.id, j.status_reason, j.credential, j.final_cost;

-- name: write_transition
-- Writes an event ($2: its type) for each changed job, in the transaction of the change. If a lease ended ($4: how), writes its
-- cost record, with the fingerprint of the report that ended it ($5). Writes notifications to the owner, from templates that take
-- the job's title, the error, the attempt, the number of attempts and the note of the last forecast.
with changed as (
    select
        j.id, j.user_id, j.revision, j.status, j.current_stage, j.progress, j.current_epoch, j.current_step,
        j.current_metrics, j.current_cost, j.final_cost, j.attempt, j.max_attempts, j.error_message, j.status_reason,
        j.max_cost_usd, j.lease_epoch, j.lease_token, j.billed_from, j.worker_id, j.hourly_rate, j.storage_usd, j.spent_cost,
        j.spent_seconds, j.billed_seconds, j.measured_since, j.measured_from_step, j.total_steps, j.updated_at, j.reforecast,
        j.name, d.name as dataset_name, coalesce('"' || j.name || '"', 'for "' || d.name || '"') as title
    from lora_training_jobs j join lora_datasets d on d.id = j.dataset_id
    where j.id = any($1::uuid[])
), event as (
    insert into job_events (job_id, user_id, revision, type, status, data)
    select
        id, user_id, revision, $2, status,
        jsonb_strip_nulls(jsonb_build_object(
            'current_stage', current_stage, 'progress', progress, 'current_epoch', current_epoch,
            'current_step', current_step, 'current_metrics', current_metrics, 'current_cost', current_cost,
            'final_cost', final_cost, 'attempt', attempt, 'error_message', error_message,
            'status_reason', status_reason, 'max_cost_usd', max_cost_usd,
            'seconds_left', case
                when status = 'running' and progress >= 1 and current_step > measured_from_step and updated_at > measured_since
                then extract(epoch from updated_at - measured_since) * (total_steps - current_step)
                    / (current_step - measured_from_step)
            end,
            'log_lines', $3::text[],
            'reforecast', case when $2 = 'reforecast' then reforecast end
        ))
    from changed
), cost as (
    insert into cost_records (
        job_id, user_id, lease_epoch, attempt, worker_id, lease_token, outcome, result_digest, hourly_rate,
        billed_seconds, cost_usd, storage_usd, started_at, ended_at
    )
    select
        id, user_id, lease_epoch, case when status = 'queued' and $4 <> 'released' then attempt - 1 else attempt end,
        worker_id, lease_token, $4, $5, hourly_rate, billed_seconds - spent_seconds, current_cost - spent_cost,
        case when status = 'completed' then least(storage_usd, current_cost - spent_cost) else 0 end,
        -- The end of what is billed: a lease that ran out ended before the sweeper saw it.
        coalesce(billed_from, updated_at),
        coalesce(billed_from, updated_at) + (billed_seconds - spent_seconds) * interval '1 second'
    from changed
    where $4::text is not null and lease_epoch > 0
    -- A job that waits was charged when its last lease ended.
    on conflict do nothing
)
insert into lora_notifications (user_id, type, title, message, priority, action_url, metadata)
select
    m.user_id, n.type, n.title,
    format(n.template, m.title, coalesce(m.error_message, ''), m.attempt, m.max_attempts, coalesce(m.reforecast ->> 'note', '')),
    n.priority, '/training/jobs/' || m.id,
    jsonb_strip_nulls(jsonb_build_object('job_id', m.id, 'job_name', m.name, 'dataset_name', m.dataset_name))
from changed m
cross join unnest($6::text[], $7::text[], $8::text[], $9::text[]) as n (type, title, template, priority);

-- name: record_metrics
-- Values of one step are merged: a training library may report loss and eval loss of a step one after the other. Values of a
-- later lease replace those of an earlier one.
insert into job_metrics as known (job_id, user_id, step, epoch, lease_epoch, values)
select j.id, j.user_id, p.step, p.epoch, j.lease_epoch, p.values
from lora_training_jobs j
cross join unnest($2::bigint[], $3::double precision[], $4::jsonb[]) as p (step, epoch, values)
where j.id = $1
on conflict on constraint job_metrics_pkey do update
set
    epoch = excluded.epoch, lease_epoch = excluded.lease_epoch, created_at = now(),
    values = case
        when known.lease_epoch = excluded.lease_epoch
            and (select count(*) from jsonb_object_keys(known.values || excluded.values)) <= 64
        then known.values || excluded.values
        else excluded.values
    end
where known.lease_epoch <= excluded.lease_epoch;

-- name: lease_outcome
-- How a lease ended, by its token. Repeated and late reports are answered from it.
select outcome, result_digest from cost_records where job_id = $1 and lease_token = $2;

-- name: is_initializing
-- Whether the job of a lease that is not over has not begun to train.
select exists (
    select from lora_training_jobs
    where id = $1 and lease_token = $2 and lease_expires_at > clock_timestamp() and status = 'initializing'
);

-- name: prune_offers
-- Deletes offers that were not renewed for an hour.
delete from trainer_offers where seen_at < now() - interval '1 hour';

-- name: waiting_jobs
-- How many jobs of each user wait for each GPU type.
select gpu_type, user_id, count(*) as waiting from lora_training_jobs where status = 'queued' group by gpu_type, user_id;

-- name: gpu_capacity
-- Free and busy GPUs and the jobs of the types with the most jobs.
select * from gpu_capacity order by queued_jobs + starting_jobs + running_jobs desc, gpu_type limit $1;

-- name: latest_offers
-- The largest number of GPUs of each type that one trainer offered in the last minute.
select gpu_type, max(gpu_count) as gpus from live_offers group by gpu_type;
