-- name: server
-- Clock, version, connections and the oldest open transaction. Needs an administrator's login.
select
    current_setting('server_version_num')::integer as version,
    clock_timestamp() as clock,
    pg_is_in_recovery() as standby,
    (select count(*) from pg_stat_activity where backend_type = 'client backend') as connections,
    current_setting('max_connections')::integer as max_connections,
    coalesce((
        select extract(epoch from max(clock_timestamp() - xact_start)) from pg_stat_activity
        where backend_type = 'client backend' and pid <> pg_backend_pid()
    ), 0)::double precision as oldest_transaction_seconds;

-- name: replicas
-- Standbys that are connected, with how far each is behind.
select application_name as name, coalesce(extract(epoch from replay_lag), 0)::double precision as lag_seconds
from pg_stat_replication order by application_name;

-- name: waiting
-- GPU types that queued jobs need, the age of the oldest job, and whether a trainer has offered the type in the last minutes.
select
    j.gpu_type, count(*) as jobs,
    extract(epoch from clock_timestamp() - min(j.queued_at))::double precision as oldest_seconds,
    exists (
        select from trainer_offers o
        where o.gpu_type = j.gpu_type and o.seen_at > now() - make_interval(secs => $1)
    ) as offered
from lora_training_jobs j where j.status = 'queued'
group by j.gpu_type order by j.gpu_type;

-- name: trainers
-- Trainers that have asked for jobs in the last minutes.
select count(distinct (worker_id, trainer)) from trainer_offers where seen_at > now() - make_interval(secs => $1);

-- name: webhooks
-- Deliveries that are due, and the age of the oldest.
select
    count(*) as due,
    coalesce(extract(epoch from clock_timestamp() - min(next_attempt_at)), 0)::double precision as oldest_seconds
from webhook_deliveries where status in ('pending', 'sending') and next_attempt_at < now();

-- name: dataset_files
-- Files that datasets have, with their sizes.
select storage_path as path, file_size as bytes from lora_datasets
where deleted_at is null and status = 'ready' and storage_path is not null;

-- name: known_files
-- Every file of storage that a row names: of datasets, deleted ones too, and those the sweeper removes by itself.
select storage_path as path from lora_datasets where storage_path is not null
union select path from unclaimed_files;

-- name: end_leases
-- Ends every lease, after a restore: reports on leases from before it are refused, and the sweeper queues their jobs again.
update lora_training_jobs set lease_expires_at = now()
where status in ('initializing', 'running') and lease_expires_at > now();
