-- Quotes: prices that hold until they expire. The Estimator's.

create table lora_quotes (
    id uuid not null default gen_random_uuid(),
    user_id uuid not null,
    dataset_id uuid not null,
    -- Configuration with everything filled in, dataset and GPU price: what a later request is compared with.
    terms jsonb not null,
    configuration_digest bytea not null,
    dataset_revision text not null,
    catalogue_version text not null,
    cost_p50 numeric not null,
    cost_p90 numeric,
    -- Request and response, as the contract's messages: shown again as they were, never computed again.
    request bytea not null,
    answer bytea not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    constraint lora_quotes_pkey primary key (id),
    constraint lora_quotes_dataset_fkey foreign key (dataset_id, user_id) references lora_datasets (id, user_id),
    constraint lora_quotes_money_check check (cost_p50 >= 0 and cost_p90 >= cost_p50),
    constraint lora_quotes_time_check check (expires_at > created_at)
);
-- Counts a user's open quotes, and finds expired ones.
create index lora_quotes_open_idx on lora_quotes (user_id, expires_at);
create index lora_quotes_dataset_idx on lora_quotes (dataset_id);

alter table lora_quotes enable row level security;
alter table lora_quotes force row level security;
create policy own_quotes on lora_quotes to pipeline_quoter
using (user_id = (select caller_id())) with check (user_id = (select caller_id()));
grant select, insert, delete on lora_quotes to pipeline_quoter;

-- A job names no quote but its owner's.
create policy quotes_of_jobs on lora_quotes for select to pipeline_user using (user_id = (select caller_id()));
grant select (id, user_id) on lora_quotes to pipeline_user;
create policy quoted_jobs on lora_training_jobs as restrictive for insert to pipeline_user
with check (quote_id is null or exists (select from lora_quotes q where q.id = quote_id));
