-- name: dataset
-- A user's, ready to be trained on.
insert into lora_datasets (id, user_id, name, format, status, training_ready, total_training_pairs, total_tokens)
values ($1, $2, 'Questions', 'messages', 'ready', true, 5000, 1250000);

-- name: jobs_of_user
-- So many finished jobs of a user, on the user's dataset.
insert into lora_training_jobs (
    user_id, dataset_id, preset_id, hyperparameters, gpu_config, total_epochs, total_steps, estimated_total_cost,
    hourly_rate, status, completed_at, created_at
)
select
    d.user_id, d.id, 'balanced', '{"batch_size": 4, "epochs": 3, "learning_rate": 5e-5, "rank": 16}',
    '{"type": "A100-80GB", "count": 2}', 3, 3750, 7.61, 7, 'completed', now(), now() - number * interval '1 hour'
from lora_datasets d, generate_series(1, $2::integer) number
where d.user_id = $1;

-- name: jobs_of_others
-- Ten jobs for each of so many other users, one in a hundred of all jobs still queued.
with others as (
    insert into lora_datasets (user_id, name, format, status, training_ready, total_training_pairs, total_tokens)
    select gen_random_uuid(), 'Questions ' || number, 'messages', 'ready', true, 5000, 1250000
    from generate_series(1, $1::integer) number
    returning id, user_id
)
insert into lora_training_jobs (
    user_id, dataset_id, preset_id, hyperparameters, gpu_config, total_epochs, total_steps, estimated_total_cost,
    hourly_rate, status, completed_at, created_at
)
select
    d.user_id, d.id, 'balanced', '{"batch_size": 4, "epochs": 3, "learning_rate": 5e-5, "rank": 16}',
    '{"type": "A100-80GB", "count": 2}', 3, 3750, 7.61, 7,
    case when waits then 'queued' else 'completed' end,
    case when not waits then now() end,
    now() - number * interval '1 hour'
from
    others d,
    generate_series(1, 10) number,
    lateral (select number = 1 and hashtext(d.user_id::text) % 10 = 0 as waits) chosen;

-- name: forget_created
-- As if the creators had created nothing.
set session_replication_role = replica;
delete from job_events;
delete from lora_training_jobs where user_id between 'aaaaaaaa-0000-4000-8000-000000000000' and 'aaaaaaaa-0000-4000-8fff-ffffffffffff';
truncate lora_notifications;
delete from audit_events;
