-- name: create_job
-- The function is in database/routines/create_job.sql: $2 holds the columns of the job by name, $3 is the limit of open jobs.
select * from create_job($1, $2, $3);

-- name: find_request
-- The job that an idempotency key made before, whatever became of its dataset since.
select * from job_details where request_id = $1;

-- name: get_job
-- Row-level security makes another user's job as absent as one that never was. `seen`: which transactions it shows, and
-- `latest` the last of them that left an event of the caller's.
select *, pg_current_snapshot()::text as seen, (
    select e.xid::text::bigint from job_events e
    where e.user_id = (select caller_id()) order by e.user_id desc, e.xid desc, e.seq desc limit 1
) as latest
from job_details where id = $1;

-- name: list_jobs
-- The function is in database/routines/list_jobs.sql.
select * from list_jobs($1, $2, $3, $4);

-- name: newest_jobs
-- The first page without its total, with `seen` and `latest` as in get_job; one row without a job where there is none.
select picture.seen, picture.latest, details.*
from (
    select pg_current_snapshot()::text as seen, (
        select e.xid::text::bigint from job_events e
        where e.user_id = (select caller_id()) order by e.user_id desc, e.xid desc, e.seq desc limit 1
    ) as latest
) picture
left join job_details details on details.id = any(array(
    select id from lora_training_jobs order by created_at desc, id desc limit $1
))
order by details.created_at desc, details.id desc;

-- name: readiness
-- Whether jobs may train on a dataset of the caller's.
select status, training_ready from lora_datasets where id = $1 and deleted_at is null;
