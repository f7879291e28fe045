-- name: lease_of_upload
-- The job of a lease, with the bytes and files that it has uploaded; no row once the lease is over.
select
    j.user_id, j.lease_epoch,
    coalesce(sum(f.size) filter (where f.name <> $3), 0)::bigint as bytes,
    count(f.name) filter (where f.name <> $3) as files
from lora_training_jobs j
left join job_artifact_files f on f.job_id = j.id and f.lease_epoch = j.lease_epoch
where j.id = $1 and j.lease_token = $2 and j.lease_expires_at > clock_timestamp()
and j.status in ('initializing', 'running')
group by j.id;

-- name: begin_upload
-- Recorded before the file's first byte is written, so that the sweeper removes the file if the upload fails.
insert into unclaimed_files (path, user_id) values ($1, $2);

-- name: keep_upload
-- Claims an uploaded file for a lease that is not over. An earlier file of its name is left to the sweeper.
with lease as (
    select id, user_id, lease_epoch from lora_training_jobs
    where id = $1 and lease_token = $2 and lease_expires_at > clock_timestamp() and status in ('initializing', 'running')
), earlier as (
    select f.path, f.user_id
    from job_artifact_files f join lease on f.job_id = lease.id and f.lease_epoch = lease.lease_epoch
    where f.name = $3
), claimed as (
    delete from unclaimed_files where path = $6 and exists (select from lease)
), unclaimed as (
    insert into unclaimed_files (path, user_id, since) select path, user_id, '-infinity' from earlier
)
insert into job_artifact_files (job_id, user_id, lease_epoch, name, size, sha256, path)
select id, user_id, lease_epoch, $3, $4, $5, $6 from lease
on conflict on constraint job_artifact_files_pkey do update
set size = excluded.size, sha256 = excluded.sha256, path = excluded.path, created_at = now()
returning job_id;

-- name: drop_upload
-- After a failed upload: the next sweep removes its file.
update unclaimed_files set since = '-infinity' where path = $1;

-- name: uploaded_files
-- What the current or last lease of a job has uploaded.
select f.name, f.size, f.sha256, f.path
from job_artifact_files f join lora_training_jobs j on j.id = f.job_id and j.lease_epoch = f.lease_epoch
where j.id = $1
order by f.name;

-- name: drop_files
-- Leaves files of a job to the sweeper: those of earlier leases, and those of the last lease that are not among $2.
with dropped as (
    delete from job_artifact_files f using lora_training_jobs j
    where j.id = $1 and f.job_id = j.id and (f.lease_epoch <> j.lease_epoch or f.name <> all($2::text[]))
    returning f.path, f.user_id
)
insert into unclaimed_files (path, user_id, since) select path, user_id, '-infinity' from dropped
on conflict (path) do nothing;

-- name: get_artifact
-- The result of one of the caller's jobs; one row without a file if it has none, and no row if there is no such job.
select
    j.estimate, coalesce(j.result_step, j.total_steps) as step, j.completed_at, f.name, f.size, f.sha256, f.path
from lora_training_jobs j
left join job_artifact_files f
    on f.job_id = j.id and f.lease_epoch = j.lease_epoch and j.status = 'completed'
where j.id = $1 and j.deleted_at is null
order by f.name;

-- name: delete_artifact
-- Deletes the files of one of the caller's completed jobs, and leaves them to the sweeper. No row if there are none.
with job as (
    update lora_training_jobs set artifact_size = null
    where id = $1 and status = 'completed' and artifact_size is not null
    returning id
), deleted as (
    delete from job_artifact_files where job_id in (select id from job)
    returning path, user_id
), unclaimed as (
    insert into unclaimed_files (path, user_id, since) select path, user_id, '-infinity' from deleted
)
select id from job;

-- name: old_artifacts
-- Up to $2 jobs whose files are to be deleted: they completed more than $1 ago (null: never), or ended without a result.
select id from lora_training_jobs
where id in (select job_id from job_artifact_files)
and (
    (status = 'completed' and completed_at < now() - $1::interval)
    or status in ('failed', 'cancelled')
    or deleted_at is not null
)
limit $2
for update skip locked;

-- name: drop_artifacts
-- Deletes the files of those jobs, and leaves them to the sweeper.
with job as (
    update lora_training_jobs set artifact_size = null where id = any($1::uuid[]) and artifact_size is not null
), deleted as (
    delete from job_artifact_files where job_id = any($1::uuid[])
    returning path, user_id
)
insert into unclaimed_files (path, user_id, since) select path, user_id, '-infinity' from deleted
on conflict (path) do nothing;

-- name: leased_dataset
-- The stored file of a lease's dataset, or of its validation dataset ($3).
select d.storage_bucket as bucket, d.storage_path as path
from lora_training_jobs j
left join lora_datasets d on d.id = case when $3::boolean then j.validation_dataset_id else j.dataset_id end
where j.id = $1 and j.lease_token = $2 and j.lease_expires_at > clock_timestamp()
and j.status in ('initializing', 'running');
