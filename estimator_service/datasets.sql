-- name: get_dataset
-- What an estimate needs. Row-level security makes another user's dataset as absent as one that never was.
select name, status, training_ready, total_training_pairs, total_tokens
from lora_datasets
where id = $1 and deleted_at is null;
