-- name: lock_user
-- One creation at a time for a user, so that two cannot both take the last place below the limit.
select pg_advisory_xact_lock(hashtextextended('jobs of ' || caller_id(), 0));

-- name: create_job
-- Job, event and notification in one statement, so all or none; nothing where the dataset is not ready any more or the
-- user has as many open jobs as one may have.
-- `do update` waits for a rival with the same key and returns its row, where `do nothing` would return none.
with dataset as (
    select id, user_id, name, format, total_training_pairs
    from lora_datasets
    where id = $1 and status = 'ready' and training_ready and deleted_at is null
    and (
        select count(*) from lora_training_jobs
        where user_id = (select caller_id()) and completed_at is null
    ) < $17
), job as (
    insert into lora_training_jobs (
        user_id, dataset_id, preset_id, hyperparameters, gpu_config, total_epochs, total_steps,
        estimated_total_cost, client_estimated_cost, hourly_rate, request_id, request_digest,
        max_cost_usd, max_duration_seconds, priority, retried_from, max_attempts, revision, base_model, training,
        provider, allow_oom_risk, quote_id, estimate, model_family, stack, forecast_p10_seconds, forecast_seconds,
        forecast_p90_seconds, forecast_overhead_seconds, forecast_correction, forecast_slopes, forecast_model
    )
    select
        user_id, id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, 1, $18, $19, $20, $21, $22, $23,
        $24, $25, $26, $27, $28, $29, $30, $31, $32
    from dataset
    on conflict on constraint lora_training_jobs_request_key do update set request_id = excluded.request_id
    returning *, (xmax = 0) as created
), event as (
    insert into job_events (job_id, user_id, revision, type, status, data)
    select
        id, user_id, revision, 'queued', status,
        jsonb_build_object('current_stage', current_stage, 'attempt', attempt, 'current_cost', current_cost)
    from job where created
), notification as (
    insert into lora_notifications (user_id, type, title, message, priority, action_url, metadata)
    select
        job.user_id, 'job_queued', 'Training Job Queued',
        format('Your training job for "%s" has been queued and will start shortly', dataset.name),
        'low', '/training/jobs/' || job.id,
        jsonb_build_object('job_id', job.id, 'dataset_name', dataset.name)
    from job cross join dataset
    where job.created
)
select
    job.*, null::double precision as seconds_left,
    (
        select count(*) from lora_training_jobs a
        where a.status = 'queued' and a.gpu_type = job.gpu_type and a.user_id = job.user_id and a.place <= job.place
    ) as own_ahead,
    d.name as dataset_name, d.format as dataset_format, d.total_training_pairs as dataset_pairs
from job join lora_datasets d on d.id = job.dataset_id;

-- name: find_request
-- The job that an idempotency key made before, whatever became of its dataset since.
select * from job_details where request_id = $1;

-- name: get_job
-- Row-level security makes another user's job as absent as one that never was. `seen`: which transactions it shows, and
-- `latest` the last of them that left an event of the caller's.
select *, pg_current_snapshot()::text as seen, (
    select xid::text::bigint from job_events
    where user_id = (select caller_id()) order by user_id desc, xid desc, seq desc limit 1
) as latest
from job_details where id = $1;

-- name: list_jobs
-- A page and the exact total from one snapshot; the left join keeps the total where the page is empty. Row-level
-- security adds the owner, which leads the index. The page is cut before its details are looked up.
-- `seen` and `latest` as in get_job.
select counted.total, counted.seen, counted.latest, page.*
from (
    select count(*) as total, pg_current_snapshot()::text as seen, (
        select xid::text::bigint from job_events
        where user_id = (select caller_id()) order by user_id desc, xid desc, seq desc limit 1
    ) as latest
    from lora_training_jobs where status = any($1::text[])
) counted
left join lateral (
    select details.*
    from (
        select id from lora_training_jobs
        where status = any($1::text[])
        order by created_at desc, id desc
        limit $2 offset $3
    ) j join job_details details on details.id = j.id
) page on true
order by page.created_at desc, page.id desc;

-- name: create_dataset
-- Written once the whole file is read: a dataset is never half there.
insert into lora_datasets (
    id, user_id, name, description, format, status, training_ready, total_training_pairs, total_validation_pairs,
    total_tokens, p50_tokens, p95_tokens, longest_tokens, token_histogram, storage_bucket, storage_path, file_name,
    file_size, validated_at, validation_errors, validation_error_count
)
values (
    $1, (select caller_id()), $2, $3, $4, $5, $5 = 'ready', $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, now(),
    $17, $18
)
returning *;

-- name: get_dataset
-- Row-level security makes another user's dataset as absent as one that never was.
select * from lora_datasets where id = $1 and deleted_at is null;

-- name: list_datasets
-- As list_jobs. A name is searched for as it is typed: strpos knows no wildcards.
select counted.total, page.*
from (
    select count(*) as total from lora_datasets
    where deleted_at is null and status = any($1::text[]) and strpos(lower(name), lower($4)) > 0
) counted
left join lateral (
    select * from lora_datasets
    where deleted_at is null and status = any($1::text[]) and strpos(lower(name), lower($4)) > 0
    order by created_at desc, id desc
    limit $2 offset $3
) page on true
order by page.created_at desc, page.id desc;

-- name: list_notifications
-- As list_jobs, with the number that are unread whatever the filter.
select counted.total, counted.unread, page.*
from (
    select count(*) filter (where not (read and $1)) as total, count(*) filter (where not read) as unread
    from lora_notifications
) counted
left join lateral (
    select * from lora_notifications
    where not (read and $1)
    order by created_at desc, id desc
    limit $2 offset $3
) page on true
order by page.created_at desc, page.id desc;

-- name: mark_notification_read
-- Doing it again changes nothing and returns the row all the same.
update lora_notifications set read = true where id = $1 returning *;
