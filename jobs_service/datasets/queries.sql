-- name: get_dataset
-- Row-level security hides other users' datasets: no row for those either.
select * from lora_datasets where id = $1 and deleted_at is null;

-- name: list_datasets
-- A page with the number of all matches; one row without a dataset if the page is empty. strpos has no wildcards.
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

-- name: reserve_file
-- Recorded before the file's first byte is written.
insert into unclaimed_files (path, user_id) values ($1, (select caller_id()));

-- name: release_file
-- If no dataset has claimed the file, the next sweep removes it.
update unclaimed_files set since = '-infinity' where path = $1;

-- name: usage
-- How many datasets the caller has, without deleted ones, and the bytes of their files in storage. Excerpts of bad files are small
-- and not counted.
select
    count(*) as datasets, coalesce(sum(stored_size) filter (where status = 'ready'), 0)::bigint as bytes
from lora_datasets
where user_id = (select caller_id()) and deleted_at is null;

-- name: lock_user
-- Creating a job takes the same lock, so a dataset is not deleted meanwhile; nor do two files use the same quota.
select pg_advisory_xact_lock(hashtextextended('jobs of ' || caller_id(), 0));

-- name: create_dataset
-- Inserted once the whole file is read. Its file is no longer unclaimed.
with claimed as (
    delete from unclaimed_files where path = $14::text
)
insert into lora_datasets (
    id, user_id, name, description, format, status, training_ready, total_training_pairs, total_validation_pairs,
    total_tokens, p50_tokens, p95_tokens, longest_tokens, token_histogram, storage_bucket, storage_path, file_name,
    file_size, validated_at, validation_errors, validation_error_count, validation_warnings, total_rows, stored_size,
    script_tokens
)
values (
    $1, (select caller_id()), $2, $3, $4, $5, $5 = 'ready', $6, $7, $8, $9, $10, $11, $12, $13, $14::text, $15, $16, now(),
    $17, $18, $19, $20, $21, $22
)
returning *;

-- name: delete_dataset
-- Leaves its file to the next sweep ($2: our bucket). Returns no row if a job of it is not final.
with deleted as (
    update lora_datasets set deleted_at = now()
    where id = $1 and deleted_at is null
    and not exists (
        select from lora_training_jobs where (dataset_id = $1 or validation_dataset_id = $1) and completed_at is null
    )
    returning id, storage_bucket, storage_path
), unclaimed as (
    insert into unclaimed_files (path, user_id, since)
    select storage_path, (select caller_id()), '-infinity' from deleted
    where storage_bucket = $2 and is_own_dataset_file(storage_path)
)
select id from deleted;

-- name: open_jobs
-- Jobs that train on a dataset or are validated with it, and are not final; no row if the caller has no such dataset.
select (
    select count(*) from lora_training_jobs where (dataset_id = $1 or validation_dataset_id = $1) and completed_at is null
)
from lora_datasets where id = $1 and deleted_at is null;

-- name: old_files
-- Up to $2 files that have been unclaimed for $1. Taking them resets their time, so that no other process takes them too.
-- Files that a dataset or a result has are not returned, and are no longer unclaimed.
with old as materialized (
    select path, user_id from unclaimed_files where since < now() - $1::interval
    order by since limit $2
    for update skip locked
), used as materialized (
    select path from old
    where exists (select from job_artifact_files a where a.path = old.path)
    or exists (
        select from lora_datasets d
        where d.user_id = old.user_id and d.storage_path = old.path and d.deleted_at is null
    )
), claimed as (
    delete from unclaimed_files where path in (select path from used)
)
update unclaimed_files set since = now()
where path in (select path from old) and path not in (select path from used)
returning path;

-- name: removed
-- Forgets files that are no longer in storage.
delete from unclaimed_files where path = any($1::text[]);
