-- Files of datasets: deleted with them, bounded for each user, and none left that no dataset has.

-- Files that may be in storage without a dataset: written down before a file is begun, gone with the row that names it, and
-- back when its dataset is deleted. What stands here for long is removed.
create table unclaimed_files (
    path text not null,
    user_id uuid not null,
    since timestamptz not null default now(),
    constraint unclaimed_files_pkey primary key (path)
);
create index unclaimed_files_since_idx on unclaimed_files (since);
alter table unclaimed_files enable row level security;
alter table unclaimed_files force row level security;
create policy own_files on unclaimed_files to pipeline_user
using (user_id = (select caller_id())) with check (user_id = (select caller_id()));
create policy all_files on unclaimed_files to pipeline_system using (true) with check (true);
grant select, insert, delete on unclaimed_files to pipeline_user;
grant select, delete on unclaimed_files to pipeline_system;
grant update (since) on unclaimed_files to pipeline_user, pipeline_system;
-- Its row stays, for the jobs that trained on it.
grant update (deleted_at) on lora_datasets to pipeline_user;
