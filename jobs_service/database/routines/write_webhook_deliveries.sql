-- Writes a delivery for each webhook that a notification goes to. A trigger, since several statements and other systems write
-- notifications, and none can forget it. For each row, so that a statement without a notification runs nothing; for a user
-- without webhooks it is one index lookup. Names carry their schema: it runs with the rights of pipeline_outbox.
create or replace function write_webhook_deliveries() returns trigger
language plpgsql security definer
as $$
begin
    insert into public.webhook_deliveries (webhook_id, user_id, type, body)
    select
        w.id, new.user_id, new.type,
        jsonb_build_object(
            'type', new.type,
            'timestamp', to_char(new.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            'data', new.metadata || jsonb_build_object(
                'notification_id', new.id, 'user_id', new.user_id, 'title', new.title,
                'message', left(new.message, 4000), 'priority', new.priority, 'action_url', new.action_url
            )
        )::text
    from public.webhooks w
    where w.user_id = new.user_id and w.disabled_reason is null
    and (w.event_types = '{}' or new.type = any(w.event_types));
    return null;
end
$$;
create or replace trigger write_webhook_deliveries after insert on lora_notifications
for each row execute function write_webhook_deliveries();
