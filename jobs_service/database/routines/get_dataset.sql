-- The columns of a dataset that an estimate needs; no row if it is not the caller's. A function, since taking the caller's role,
-- reading and ending the transaction are then one round trip. It runs with the rights of its caller; role and claims end with
-- the transaction. `revision` changes with the dataset's content, and not with its name or description.
drop function if exists get_dataset;
create function get_dataset(caller uuid, dataset uuid) returns table (
    name text, status text, training_ready boolean, total_training_pairs bigint, total_tokens bigint,
    total_validation_pairs bigint, longest_tokens integer, token_histogram jsonb, script_tokens jsonb, revision text
)
language plpgsql stable rows 1
as $$
declare
    setting text;
begin
    setting := set_config('role', 'pipeline_quoter', true);
    setting := set_config('request.jwt.claims', format('{"sub":"%s","role":"user"}', caller), true);
    return query
    select
        d.name, d.status, d.training_ready, d.total_training_pairs, d.total_tokens, d.total_validation_pairs,
        d.longest_tokens, d.token_histogram, d.script_tokens,
        left(encode(sha256(convert_to(concat_ws(
            '|', d.total_training_pairs, d.total_tokens, d.total_validation_pairs, d.p50_tokens, d.p95_tokens,
            d.longest_tokens, d.file_size, d.storage_path
        ), 'utf8')), 'hex'), 12)
    from lora_datasets d
    where d.id = dataset and d.deleted_at is null;
end
$$;
-- It acts as any user, so only the Estimator may call it.
revoke execute on function get_dataset from public;
grant execute on function get_dataset to pipeline_estimator;
