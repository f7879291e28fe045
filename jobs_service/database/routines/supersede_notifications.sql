-- A notification replaces the earlier ones about the same job; job_queued is the first of a job and replaces none. The trigger
-- runs before the insert: of several rows of one statement, the last one stays. Names carry their schema: it runs with the rights
-- of pipeline_outbox, since no caller may change the column.
create or replace function supersede_notifications() returns trigger
language plpgsql security definer
as $$
begin
    update public.lora_notifications set superseded = true
    where metadata ->> 'job_id' = new.metadata ->> 'job_id' and user_id = new.user_id and not superseded;
    return new;
end
$$;
create or replace trigger supersede_notifications before insert on lora_notifications
for each row when (new.type <> 'job_queued' and new.metadata ->> 'job_id' is not null) execute function supersede_notifications();
