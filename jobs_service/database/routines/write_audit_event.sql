-- Writes the audit event of a change. Arguments of the trigger: the action, and the column with the resource's name. The caller
-- and its addresses are in the transaction's claims. Names carry their schema: it runs with the rights of pipeline_outbox, since
-- no caller may write audit events.
create or replace function write_audit_event() returns trigger
language plpgsql security definer
as $$
declare
    changed record;
    changed_name text;
    claims jsonb := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
begin
    if tg_op = 'DELETE' then
        changed := old;
    else
        changed := new;
    end if;
    if tg_argv[1] = 'name' then
        changed_name := changed.name;
    else
        changed_name := changed.description;
    end if;
    insert into public.audit_events (
        user_id, action, resource_id, resource_name, api_key_id, address, client_address, request_id
    )
    values (
        changed.user_id, tg_argv[0], changed.id, coalesce(changed_name, ''),
        (claims ->> 'api_key_id')::uuid, claims ->> 'address', claims ->> 'client_address', claims ->> 'request_id'
    );
    return null;
end
$$;
-- Only what a caller does: the services' own tasks and trainers change jobs too.
create or replace trigger audit_job_created after insert on lora_training_jobs
for each row when (current_user = 'pipeline_user') execute function write_audit_event('job_created', 'name');
create or replace trigger audit_job_cancelled after update of status on lora_training_jobs
for each row when (current_user = 'pipeline_user' and new.status = 'cancelled' and old.status <> 'cancelled')
execute function write_audit_event('job_cancelled', 'name');
create or replace trigger audit_job_deleted after update of deleted_at on lora_training_jobs
for each row when (current_user = 'pipeline_user' and new.deleted_at is not null and old.deleted_at is null)
execute function write_audit_event('job_deleted', 'name');
create or replace trigger audit_dataset_deleted after update of deleted_at on lora_datasets
for each row when (current_user = 'pipeline_user' and new.deleted_at is not null and old.deleted_at is null)
execute function write_audit_event('dataset_deleted', 'name');
create or replace trigger audit_webhook_created after insert on webhooks
for each row when (current_user = 'pipeline_user') execute function write_audit_event('webhook_created', 'description');
create or replace trigger audit_webhook_changed after update of url, event_types, disabled_reason on webhooks
for each row when (current_user = 'pipeline_user') execute function write_audit_event('webhook_changed', 'description');
create or replace trigger audit_webhook_secret_replaced after update of secret on webhooks
for each row when (current_user = 'pipeline_user') execute function write_audit_event('webhook_secret_replaced', 'description');
create or replace trigger audit_webhook_deleted after delete on webhooks
for each row when (current_user = 'pipeline_user') execute function write_audit_event('webhook_deleted', 'description');
create or replace trigger audit_api_key_created after insert on api_keys
for each row when (current_user in ('pipeline_user', 'pipeline_worker')) execute function write_audit_event('api_key_created', 'name');
create or replace trigger audit_api_key_revoked after delete on api_keys
for each row when (current_user in ('pipeline_user', 'pipeline_worker')) execute function write_audit_event('api_key_revoked', 'name');
create or replace trigger audit_api_key_used after update of last_used_at on api_keys
for each row when (
    old.last_used_at is null and new.last_used_at is not null or new.last_used_at > old.last_used_at + interval '1 hour'
)
execute function write_audit_event('api_key_used', 'name');
