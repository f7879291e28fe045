-- name: create_job
-- The function is in database/routines/create_job.sql: $2 holds the columns of the job by name, $3 is the limit of open jobs.
select * from create_job($1, $2, $3);

-- name: find_request
-- The job that an idempotency key created before, whatever became of its dataset since.
select * from job_details where request_id = $1;

-- name: get_job
-- Row-level security hides other users' jobs, so they are as absent as jobs that never were.
select * from job_details where id = $1;

-- name: list_jobs
-- The function is in database/routines/list_jobs.sql. Row-level security adds the owner, which leads the index.
select * from list_jobs($1, $2, $3, $4);

-- name: readiness
-- Whether jobs may train on a dataset of the caller's.
select status, training_ready from lora_datasets where id = $1 and deleted_at is null;
