-- name: get_dataset
-- The function is in jobs_service/database/routines/get_dataset.sql. Row-level security hides other users' datasets.
select * from get_dataset($1, $2);
