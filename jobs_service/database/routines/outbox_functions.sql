-- Gives trigger functions that are `security definer` to pipeline_outbox, whose rights they run with. An administrator who is no
-- superuser can do that only for a role that it is a member of and that may create in the schema.
do $$
begin
    execute format('grant pipeline_outbox to %I', current_user);
    grant create on schema public to pipeline_outbox;
    alter function supersede_notifications() owner to pipeline_outbox;
    alter function write_audit_event() owner to pipeline_outbox;
    alter function write_webhook_deliveries() owner to pipeline_outbox;
    revoke create on schema public from pipeline_outbox;
end $$;
