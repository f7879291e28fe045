-- name: offer_gpus
-- Stores the free GPUs of a trainer ($4: its name), which explain why jobs wait. An unchanged offer is written again after 10
-- seconds only. Trainers that share a token have at most $5 rows together.
insert into trainer_offers as known (worker_id, trainer, gpu_type, gpu_count, simulated)
select (select caller_id()), $4, o.gpu_type, o.gpus, $3 from unnest($1::text[], $2::integer[]) as o (gpu_type, gpus)
where (select count(*) from trainer_offers where worker_id = (select caller_id()) and trainer <> $4) < $5
on conflict on constraint trainer_offers_pkey do update
set gpu_count = excluded.gpu_count, simulated = excluded.simulated, seen_at = now()
where (known.gpu_count, known.simulated) <> (excluded.gpu_count, excluded.simulated) or known.seen_at < now() - interval '10 seconds';

-- name: claim_jobs
-- Queued to initializing. Users take turns in the order of their ids: a claim begins where the last one ended ($3, pass 0), and
-- begins again at the first id after the last (pass 1). `turn` looks up one user after the other in the queue's index, of those
-- with a job that fits. `candidate` takes some jobs of each user, fewer if there are many users. These are more than $4, so that
-- concurrent claims find others; `locked` skips those that others have locked. Nothing but the queue's index is read before
-- that, so a claim costs the same however many jobs are finished. $8: jobs that cannot be claimed (see claims.py). $9: the stage
-- until the first report.
with recursive offer as (
    select o.gpu_type, o.gpus from unnest($1::text[], $2::integer[]) as o (gpu_type, gpus)
), turn as (
    (
        select o.gpu_type, o.gpus, s.pass_no, s.end_user, u.user_id, 1 as user_no
        from offer o
        cross join (
            values (0, $3::uuid, null::uuid), (1, '00000000-0000-0000-0000-000000000000'::uuid, $3::uuid)
        ) as s (pass_no, start_user, end_user)
        cross join lateral (
            select user_id from lora_training_jobs
            where status = 'queued' and gpu_type = o.gpu_type and user_id >= s.start_user and gpu_count <= o.gpus
            order by user_id limit 1
        ) u
        where s.end_user is null or u.user_id < s.end_user
    )
    union all
    select t.gpu_type, t.gpus, t.pass_no, t.end_user, u.user_id, t.user_no + 1
    from turn t
    cross join lateral (
        select user_id from lora_training_jobs
        where status = 'queued' and gpu_type = t.gpu_type and user_id > t.user_id and gpu_count <= t.gpus
        order by user_id limit 1
    ) u
    where t.user_no < $4 + 16 and (t.end_user is null or u.user_id < t.end_user)
), candidate as (
    select
        c.id, t.pass_no, t.user_id, t.gpu_type, t.gpus,
        row_number() over (partition by t.gpu_type, t.user_id order by c.queue_key, c.id) as rank_in_user
    from turn t
    cross join lateral (
        select id, queue_key from lora_training_jobs
        where status = 'queued' and gpu_type = t.gpu_type and user_id = t.user_id and gpu_count <= t.gpus
        and id <> all($8::uuid[])
        order by queue_key, id
        limit (($4 * 4 + 32) / (select count(*) from turn) + 1) * 3
    ) c
    order by rank_in_user, t.pass_no, t.user_id
    limit $4 * 4 + 32
), locked as (
    select j.id, j.gpu_count, c.gpu_type, c.gpus, c.rank_in_user, c.pass_no, c.user_id
    from candidate c join lora_training_jobs j on j.id = c.id
    where j.status = 'queued'
    order by c.rank_in_user, c.pass_no, c.user_id
    limit $4
    for update of j skip locked
), fitting as (
    select id, rank_in_user, pass_no, user_id
    from (
        select *, sum(gpu_count) over (partition by gpu_type order by rank_in_user, pass_no, user_id, id) as used from locked
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
    j.id, f.rank_in_user, f.pass_no, f.user_id, j.gpu_type,
    case when j.lease_epoch = 1 then extract(epoch from now() - j.queued_at)::double precision end as waited_seconds;

-- name: trained_types
-- GPU types that a trainer which trains (and does not simulate) offered in the last minute, or has a job of now.
select gpu_type from live_offers where not simulated
union
select gpu_type from lora_training_jobs where status in ('initializing', 'running') and not simulated;

-- name: leases
-- The leased jobs as their trainer needs them. Row-level security lets it read their datasets from now on.
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
    ) as seconds_to_limit
from lora_training_jobs j
join lora_datasets d on d.id = j.dataset_id
left join lora_datasets v on v.id = j.validation_dataset_id
where j.id = any($1::uuid[]);
