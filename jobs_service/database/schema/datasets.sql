-- Datasets, and the files in storage that no dataset names.

create table lora_datasets (
    id uuid not null default gen_random_uuid(),
    user_id uuid not null,
    name text not null,
    description text,
    format text,
    status text not null default 'uploading',
    training_ready boolean not null default false,
    total_training_pairs bigint,
    total_validation_pairs bigint,
    total_tokens bigint,
    p50_tokens integer,
    p95_tokens integer,
    longest_tokens integer,
    -- `[[largest number of tokens in the bin, samples], …]`, ascending, non-empty bins only; null if samples were not counted.
    token_histogram jsonb,
    -- `{script: [tokens of Mistral-7B's tokenizer, of Tekken], …}` of a part of the samples: forecasts for other base models count with it.
    script_tokens jsonb,
    storage_bucket text,
    storage_path text,
    file_name text,
    file_size bigint,
    validated_at timestamptz,
    -- One object for each reason, with its lines: at most 50 of each.
    validation_errors jsonb,
    validation_error_count bigint not null default 0,
    validation_warnings jsonb,
    total_rows bigint,
    -- Bytes of the stored file, which has the rows in one shape; `file_size` is that of the imported file.
    stored_size bigint,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    constraint lora_datasets_pkey primary key (id),
    -- Lets a job reference its owner and its dataset together, so that no job trains on another user's data.
    constraint lora_datasets_owner_key unique (id, user_id),
    constraint lora_datasets_status_check check (status in ('uploading', 'validating', 'ready', 'error')),
    constraint lora_datasets_counts_check check (
        total_training_pairs >= 0 and total_validation_pairs >= 0 and total_tokens >= 0
        and file_size >= 0 and validation_error_count >= 0 and total_rows >= 0 and stored_size >= 0
    )
);
create index lora_datasets_list_idx on lora_datasets (user_id, created_at desc, id desc) where deleted_at is null;

-- Files in storage without a dataset. A path is written here before its file is begun, deleted in the transaction that
-- creates its dataset, and written again when the dataset is deleted. The sweeper removes files that stay here for long.
create table unclaimed_files (
    path text not null,
    user_id uuid not null,
    since timestamptz not null default now(),
    constraint unclaimed_files_pkey primary key (path),
    constraint unclaimed_files_path_check check (path !~ '(^|/)\.\.?(/|$)')
);
create index unclaimed_files_since_idx on unclaimed_files (since);

alter table lora_datasets enable row level security;
alter table lora_datasets force row level security;
alter table unclaimed_files enable row level security;
alter table unclaimed_files force row level security;

-- Whether a file of storage is in the folder of the caller's datasets.
create function is_own_dataset_file(path text) returns boolean
language sql stable
as $$ select starts_with(path, 'datasets/' || caller_id() || '/') $$;

-- `(select …)` is evaluated once a statement, not once a row.
create policy own_datasets on lora_datasets for select to pipeline_user using (user_id = (select caller_id()));
-- A dataset names no file but one in its owner's folder. Other systems may write other paths.
create policy new_datasets on lora_datasets for insert to pipeline_user
with check (
    user_id = (select caller_id())
    and coalesce(is_own_dataset_file(storage_path) and storage_path !~ '(^|/)\.\.?(/|$)', true)
);
create policy quoted_datasets on lora_datasets for select to pipeline_quoter using (user_id = (select caller_id()));
create policy changed_datasets on lora_datasets for update to pipeline_user
using (user_id = (select caller_id())) with check (user_id = (select caller_id()));
grant select, insert on lora_datasets to pipeline_user;
grant select (
    id, user_id, name, status, training_ready, total_training_pairs, total_validation_pairs, total_tokens, p50_tokens, p95_tokens,
    longest_tokens, token_histogram, script_tokens, file_size, storage_path, deleted_at
) on lora_datasets to pipeline_quoter;
-- A deleted dataset keeps its row, for the jobs that trained on it.
grant update (deleted_at) on lora_datasets to pipeline_user;
grant select, insert, delete on unclaimed_files to pipeline_user;
grant update (since) on unclaimed_files to pipeline_user;

create policy all_datasets on lora_datasets for select to pipeline_system using (true);
create policy all_files on unclaimed_files to pipeline_system using (true) with check (true);
grant select (id, user_id, name, storage_path, deleted_at) on lora_datasets to pipeline_system;
grant select, delete on unclaimed_files to pipeline_system;
grant update (since) on unclaimed_files to pipeline_system;
