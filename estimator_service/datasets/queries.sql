-- name: get_dataset
-- What an estimate needs. Row-level security makes another user's dataset as absent as one that never was. The revision
-- changes with everything that tells of the content, and with nothing that a person may edit.
select
    name, status, training_ready, total_training_pairs, total_tokens, total_validation_pairs, longest_tokens,
    token_histogram,
    left(encode(sha256(convert_to(concat_ws(
        '|', total_training_pairs, total_tokens, total_validation_pairs, p50_tokens, p95_tokens, longest_tokens,
        file_size, storage_path
    ), 'utf8')), 'hex'), 12) as revision
from lora_datasets
where id = $1 and deleted_at is null;
