-- name: offer_gpus
-- What a trainer ($4: its name) has free, for those who ask why their job waits. Not written again while it says the same. The
-- trainers that share a token have $5 rows together.
insert into trainer_offers as known (worker_id, trainer, gpu_type, gpu_count, simulated)
select (select caller_id()), $4, o.gpu_type, o.gpus, $3 from unnest($1::text[], $2::integer[]) as o (gpu_type, gpus)
where (select count(*) from trainer_offers where worker_id = (select caller_id()) and trainer <> $4) < $5
on conflict on constraint trainer_offers_pkey do update
set gpu_count = excluded.gpu_count, simulated = excluded.simulated, seen_at = now()
where (known.gpu_count, known.simulated) <> (excluded.gpu_count, excluded.simulated) or known.seen_at < now() - interval '10 seconds';

-- name: claim_jobs
-- Queued to initializing. Users take turns: they stand in a ring, and a claim goes on where the last one ended ($3).
-- `turn` looks up one user after the other, of those with a job that fits, in the queue's index; `candidate` takes some jobs of each, the fewer the more
-- users there are, and more than wanted, so that claims at the same time find others; `locked` skips what those have locked. Nothing but the queue's index is
-- read before that, so a claim costs the same however many jobs are finished. $8: jobs that cannot be claimed (see the store).
-- $9: the stage until the first report.
with recursive offer as (
    select o.gpu_type, o.gpus from unnest($1::text[], $2::integer[]) as o (gpu_type, gpus)
), turn as (
    (
        select o.gpu_type, o.gpus, s.lap, s.upto, u.user_id, 1 as nth
        from offer o
        cross join (
            values (0, $3::uuid, null::uuid), (1, '00000000-0000-0000-0000-000000000000'::uuid, $3::uuid)
        ) as s (lap, start, upto)
        cross join lateral (
            select user_id from lora_training_jobs
            where status = 'queued' and gpu_type = o.gpu_type and user_id >= s.start and gpu_count <= o.gpus
            order by user_id limit 1
        ) u
        where s.upto is null or u.user_id < s.upto
    )
    union all
    select t.gpu_type, t.gpus, t.lap, t.upto, u.user_id, t.nth + 1
    from turn t
    cross join lateral (
        select user_id from lora_training_jobs
        where status = 'queued' and gpu_type = t.gpu_type and user_id > t.user_id and gpu_count <= t.gpus
        order by user_id limit 1
    ) u
    where t.nth < $4 + 16 and (t.upto is null or u.user_id < t.upto)
), candidate as (
    select
        c.id, t.lap, t.user_id, t.gpu_type, t.gpus,
        row_number() over (partition by t.gpu_type, t.user_id order by c.place, c.id) as round
    from turn t
    cross join lateral (
        select id, place from lora_training_jobs
        where status = 'queued' and gpu_type = t.gpu_type and user_id = t.user_id and gpu_count <= t.gpus
        and id <> all($8::uuid[])
        order by place, id
        limit (($4 * 4 + 32) / (select count(*) from turn) + 1) * 3
    ) c
    order by round, t.lap, t.user_id
    limit $4 * 4 + 32
), locked as (
    select j.id, j.gpu_count, c.gpu_type, c.gpus, c.round, c.lap, c.user_id
    from candidate c join lora_training_jobs j on j.id = c.id
    where j.status = 'queued'
    order by c.round, c.lap, c.user_id
    limit $4
    for update of j skip locked
), fitting as (
    select id, round, lap, user_id
    from (
        select *, sum(gpu_count) over (partition by gpu_type order by round, lap, user_id, id) as used from locked
    ) l
    where used <= gpus
)
update lora_training_jobs j set
    status = 'initializing', current_stage = $9, worker_id = (select caller_id()), trainer = nullif($5, ''),
    simulated = $7, billed_from = null, waiting_message = null, lease_epoch = lease_epoch + 1, lease_token = gen_random_uuid(), lease_started_at = now(),
    lease_expires_at = clock_timestamp() + $6, spent_cost = current_cost, spent_seconds = billed_seconds,
    running_since = null, reforecast = null, status_reason = null, error_message = null, revision = revision + 1, updated_at = now()
from fitting f
where j.id = f.id and j.status = 'queued'
returning
    j.id, f.round, f.lap, f.user_id, j.gpu_type,
    case when j.lease_epoch = 1 then extract(epoch from now() - j.queued_at)::double precision end as waited_seconds;

-- name: trained_types
-- GPU types that a trainer which trains (and does not simulate) offered in the last minute, or has a job of now.
select gpu_type from live_offers where not simulated
union
select gpu_type from lora_training_jobs where status in ('initializing', 'running') and not simulated;

-- name: leases
-- What a trainer needs of the jobs it was just given. Their datasets are its to read from now on.
select
    j.id as job_id, j.lease_token, j.lease_epoch, j.lease_expires_at as expires_at, j.attempt, j.max_attempts,
    j.hyperparameters, j.gpu_config, j.total_epochs, j.total_steps, j.dataset_id, d.name as dataset_name,
    d.format as dataset_format, d.total_training_pairs as dataset_pairs, d.total_tokens as dataset_tokens,
    d.storage_bucket, d.storage_path, d.stored_size as dataset_size, j.base_model, j.training, j.estimate,
    j.checkpoint_uri, j.checkpoint_step,
    case when v.id is not null then jsonb_build_object(
        'id', v.id, 'name', v.name, 'format', v.format, 'total_training_pairs', v.total_training_pairs,
        'total_tokens', v.total_tokens, 'storage_bucket', v.storage_bucket, 'storage_path', v.storage_path,
        'file_size', v.stored_size
    ) end as validation_dataset,
    seconds_to_limit(
        j.spent_cost, j.hourly_rate, j.max_cost_usd, j.spent_seconds, j.max_duration_seconds
    ) as seconds_left
from lora_training_jobs j
join lora_datasets d on d.id = j.dataset_id
left join lora_datasets v on v.id = j.validation_dataset_id
where j.id = any($1::uuid[]);

-- name: report_progress
-- Initializing to running with the first epoch or step; then on, and never back within an attempt. Renews the lease.
-- `now()` is this transaction's alone, so a column that has it was set here.
update lora_training_jobs set
    status = case when $4::integer > 0 or $5::bigint > 0 then 'running' else status end,
    started_at = coalesce(started_at, case when $4 > 0 or $5 > 0 then now() end),
    running_since = coalesce(running_since, case when $4 > 0 or $5 > 0 then now() end),
    running_from_step = case when running_since is null then $5 else running_from_step end,
    current_stage = coalesce(
        nullif($3, ''), case when ($4 > 0 or $5 > 0) and running_since is null then 'training' else current_stage end
    ),
    current_epoch = case when running_since is null then $4 else greatest(current_epoch, $4) end,
    current_step = case when running_since is null then $5 else greatest(current_step, $5) end,
    progress = 100.0 * case when running_since is null then $5 else greatest(current_step, $5) end
        / greatest(total_steps, 1),
    current_metrics = case
        when running_since is not null and $5 < current_step then current_metrics
        -- Names are a trainer's own: however many it invents, so many are kept.
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
    current_step - running_from_step >= $11::bigint and current_step < total_steps and (
        reforecast is null or ((reforecast ->> 'progress')::double precision < $12 and progress >= $12)
    ) as reforecast_due,
    seconds_to_limit(
        current_cost, hourly_rate, max_cost_usd, billed_seconds, max_duration_seconds
    ) as seconds_left;

-- name: measured_speed
-- How far a running job is and how long its steps took, with what was forecast of it and what its owner was notified of.
select
    total_steps, current_step, current_step - running_from_step as measured_steps,
    extract(epoch from updated_at - running_since)::double precision as measured_seconds, billed_seconds, hourly_rate,
    storage_usd, max_cost_usd, max_duration_seconds, simulated, estimate,
    reforecast_notices
from lora_training_jobs
where id = $1;

-- name: store_reforecast
-- Keeps what a running job was forecast anew. The transaction has the lease.
update lora_training_jobs set
    reforecast = $2::jsonb || jsonb_build_object('created_at', now()), reforecast_notices = reforecast_notices || $3::text[],
    revision = revision + 1, updated_at = now()
where id = $1;

-- name: get_lease
-- A lease that runs.
select lease_expires_at as expires_at, billed_from is null as waiting from lora_training_jobs
where id = $1 and lease_token = $2 and lease_expires_at > clock_timestamp() and status in ('initializing', 'running');

-- name: complete_job
-- Running to completed, by whoever has the lease. `duration_ratio`: what a job that trained in one go took, of what was forecast.
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
-- Back to the queue while the error is worth another attempt and there is one; else failed.
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
-- Back to the queue without losing an attempt. Returns the trainer's name and how long it had the job, too.
update lora_training_jobs set
    status = 'queued', current_stage = 'queued', status_reason = 'released',
    lease_expires_at = null, revision = revision + 1, updated_at = now()
where id = $1 and lease_token = $2 and lease_expires_at > clock_timestamp() and status in ('initializing', 'running')
returning id, trainer, extract(epoch from now() - lease_started_at)::double precision as lease_seconds;

-- name: cancel_job
-- From any state that is not final. The trainer's lease ends with it; `had_lease` is as of before.
update lora_training_jobs j set
    status = 'cancelled', current_stage = 'cancelled', status_reason = 'cancelled_by_owner',
    lease_expires_at = null, completed_at = now(), revision = revision + 1, updated_at = now()
where id = $1 and status in ('queued', 'initializing', 'running')
returning id, (select before.lease_expires_at is not null from lora_training_jobs before where before.id = j.id) as had_lease,
    credential, final_cost;

-- name: expire_leases
-- Back to the queue with an attempt more, or failed after the last. A job that a scheduler never started has lost no attempt: it is
-- released. A report at the same instant wins or loses the row; both conditions are looked at again once it is ours. Several sweepers
-- share the work.
with expired as (
    select id, current_stage = 'waiting' and billed_from is null as has_waited from lora_training_jobs
    where status in ('initializing', 'running') and lease_expires_at <= clock_timestamp()
    limit $1
    for update skip locked
)
update lora_training_jobs j set
    status = case when has_waited or attempt < max_attempts then 'queued' else 'failed' end,
    current_stage = case when has_waited or attempt < max_attempts then 'queued' else 'failed' end,
    completed_at = case when has_waited or attempt < max_attempts then null else now() end,
    error_message = case
        when not has_waited then format('The trainer was not heard of in time (attempt %s of %s).', attempt, max_attempts)
    end,
    attempt = case when has_waited then attempt else least(attempt + 1, max_attempts) end,
    retry_count = case when not has_waited and attempt < max_attempts then attempt else retry_count end,
    status_reason = case when has_waited then 'released' else 'lease_expired' end,
    lease_expires_at = null, revision = revision + 1, updated_at = now()
from expired
where j.id = expired.id and j.status in ('initializing', 'running') and j.lease_expires_at <= clock_timestamp()
returning j.id, j.status, j.status_reason, j.credential, j.final_cost;

-- name: follow_clock
-- The database's clock was set back: times of leases are in the future then. They are moved to the past, the latest to now, so
-- that a lease ends within its length from now, and costs what it took.
with ahead as (
    select id, greatest(updated_at, lease_started_at, billed_from, running_since) - clock_timestamp() as step
    from lora_training_jobs
    where status in ('initializing', 'running')
    and greatest(updated_at, lease_started_at, billed_from, running_since) > clock_timestamp() + interval '1 second'
    limit $1
    for update skip locked
)
update lora_training_jobs j set
    -- A report since then has set these two by the new clock.
    lease_expires_at = case when updated_at > clock_timestamp() then lease_expires_at - step else lease_expires_at end,
    updated_at = case when updated_at > clock_timestamp() then updated_at - step else updated_at end,
    lease_started_at = lease_started_at - step, billed_from = billed_from - step, running_since = running_since - step
from ahead
where j.id = ahead.id
returning step;

-- name: warn_of_cost
-- Once for a job, at 80 % of its cost limit.
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
-- Failed, with the limit as its reason, once the owner's limit of cost or time is reached.
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

-- name: record
-- What a change leaves behind, in its own transaction: an event for each job; where a lease ended ($4) a line of costs, with
-- the fingerprint of the report that ended it ($5); and words to the owner, each a template of the job's title, the
-- error, the attempt, the number of attempts and the note of the last forecast.
with moved as (
    select
        j.id, j.user_id, j.revision, j.status, j.current_stage, j.progress, j.current_epoch, j.current_step,
        j.current_metrics, j.current_cost, j.final_cost, j.attempt, j.max_attempts, j.error_message, j.status_reason,
        j.max_cost_usd, j.lease_epoch, j.lease_token, j.billed_from, j.worker_id, j.hourly_rate, j.storage_usd, j.spent_cost,
        j.spent_seconds, j.billed_seconds, j.running_since, j.running_from_step, j.total_steps, j.updated_at, j.reforecast,
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
                when status = 'running' and progress >= 1 and current_step > running_from_step and updated_at > running_since
                then extract(epoch from updated_at - running_since) * (total_steps - current_step)
                    / (current_step - running_from_step)
            end,
            'log_lines', $3::text[],
            'reforecast', case when $2 = 'reforecast' then reforecast end
        ))
    from moved
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
    from moved
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
from moved m
cross join unnest($6::text[], $7::text[], $8::text[], $9::text[]) as n (type, title, template, priority);

-- name: record_metrics
-- Values of one step are merged: the library that trains may report loss and eval loss of a step one after the other. A later
-- lease's take the place of an earlier one's.
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
-- How a lease ended, by its token: what a repeated or late report is answered from.
select outcome, result_digest from cost_records where job_id = $1 and lease_token = $2;

-- name: is_initializing
-- Whether a lease runs whose job has not begun to train.
select exists (
    select from lora_training_jobs
    where id = $1 and lease_token = $2 and lease_expires_at > clock_timestamp() and status = 'initializing'
);

-- name: forget_offers
-- Trainers that are gone for an hour.
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
