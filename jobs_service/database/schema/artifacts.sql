-- The files of jobs' results. Trainers upload them with their lease; the owner downloads and deletes them.

create table job_artifact_files (
    job_id uuid not null,
    user_id uuid not null,
    -- Number of the lease that uploaded it. A job's result has the files of its last lease.
    lease_epoch bigint not null,
    name text not null,
    size bigint not null,
    -- Hexadecimal digits.
    sha256 text not null,
    -- In the storage, below its root. Each upload has its own, so that none overwrites another.
    path text not null,
    created_at timestamptz not null default now(),
    constraint job_artifact_files_pkey primary key (job_id, lease_epoch, name),
    constraint job_artifact_files_job_fkey foreign key (job_id) references lora_training_jobs (id),
    constraint job_artifact_files_path_key unique (path),
    constraint job_artifact_files_size_check check (size >= 0),
    constraint job_artifact_files_path_check check (
        starts_with(path, 'artifacts/' || job_id || '/') and path !~ '(^|/)\.\.?(/|$)'
    )
);
alter table job_artifact_files enable row level security;
alter table job_artifact_files force row level security;

create policy own_artifacts on job_artifact_files for select to pipeline_user using (user_id = (select caller_id()));
create policy deleted_artifacts on job_artifact_files for delete to pipeline_user using (user_id = (select caller_id()));
grant select, delete on job_artifact_files to pipeline_user;
grant update (artifact_size) on lora_training_jobs to pipeline_user;
-- A user's files are in the folder of the user's datasets or in that of one of the user's jobs.
create policy own_files on unclaimed_files to pipeline_user
using (user_id = (select caller_id()))
with check (
    user_id = (select caller_id()) and case
        when starts_with(path, 'artifacts/')
        then exists (select from lora_training_jobs j where j.id = split_part(path, '/', 2)::uuid)
        else is_own_dataset_file(path)
    end
);

-- Trainers write only about their own leases, and files of the job's owner.
create policy leased_artifacts on job_artifact_files to pipeline_worker
using (exists (select from lora_training_jobs j where j.id = job_id and j.worker_id = (select caller_id())))
with check (exists (
    select from lora_training_jobs j
    where j.id = job_id and j.user_id = job_artifact_files.user_id and j.worker_id = (select caller_id())
    and j.lease_epoch = job_artifact_files.lease_epoch
));
create policy leased_files on unclaimed_files to pipeline_worker
using (exists (
    select from lora_training_jobs j
    where j.id = case when path like 'artifacts/%' then split_part(path, '/', 2)::uuid end
    and j.user_id = unclaimed_files.user_id and j.worker_id = (select caller_id())
))
with check (exists (
    select from lora_training_jobs j
    where j.id = case when path like 'artifacts/%' then split_part(path, '/', 2)::uuid end
    and j.user_id = unclaimed_files.user_id and j.worker_id = (select caller_id())
));
grant select, insert, update, delete on job_artifact_files to pipeline_worker;
grant select, insert, delete on unclaimed_files to pipeline_worker;
grant update (since) on unclaimed_files to pipeline_worker;

-- The sweeper removes old files, and files without a result.
create policy all_artifacts on job_artifact_files to pipeline_system using (true) with check (true);
grant select, delete on job_artifact_files to pipeline_system;
grant insert on unclaimed_files to pipeline_system;
grant update (artifact_size) on lora_training_jobs to pipeline_system;
