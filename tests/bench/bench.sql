-- name: dataset
-- Ours, ready to be trained on.
insert into lora_datasets (id, user_id, name, format, status, training_ready, total_training_pairs, total_tokens)
values ($1, $2, 'Questions', 'messages', 'ready', true, 5000, 1250000);

-- name: datasets_of_others
-- One dataset for each of so many other users.
insert into lora_datasets (user_id, name, format, status, training_ready, total_training_pairs, total_tokens)
select gen_random_uuid(), 'Questions ' || number, 'messages', 'ready', true, 5000, 1250000
from generate_series(1, $1::integer) number;

-- name: jobs_of_all
-- Ten jobs for every user, one in a hundred of all of them still queued.
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
    lora_datasets d,
    generate_series(1, 10) number,
    lateral (select number = 1 and hashtext(d.user_id::text) % 10 = 0 as waits) chosen;

-- name: remove_jobs
-- As if nobody had queued anything.
truncate lora_training_jobs, lora_notifications cascade;
