-- name: create_job
-- The function is in database/routines/create_job.sql. $1: the caller; $2: the columns of the job by name; $3: the limit of open
-- jobs; $4: the claims for the audit log.
select * from create_job($1, $2, $3, $4);

-- name: find_request
-- The job that an idempotency key created before, even if its dataset was deleted since.
select * from job_details where idempotency_key = $1;

-- name: get_job
-- Row-level security hides other users' jobs: no row for those either.
select * from job_details where id = $1;

-- name: list_jobs
-- The function is in database/routines/list_jobs.sql, with the names of the parameters. Row-level security adds the owner, which
-- leads the index.
select * from list_jobs($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: update_job
-- The only columns that an owner may edit, at any time.
update lora_training_jobs set name = $2, labels = $3 where id = $1 and deleted_at is null;

-- name: delete_job
-- Hides a final job. Its idempotency key can be used again, for a new job.
update lora_training_jobs set deleted_at = now(), idempotency_key = null, request_digest = null
where id = $1 and completed_at is not null and deleted_at is null
returning id;

-- name: dataset_status
-- Whether the caller's datasets are ready to train on.
select status, training_ready from lora_datasets where id = any($1::uuid[]) and deleted_at is null;
