-- A new URL is another receiver: that the last one was responsive says nothing of it.
create or replace function forget_receiver() returns trigger
language plpgsql
as $$
begin
    new.responsive := false;
    return new;
end
$$;
create or replace trigger forget_receiver before update of url on webhooks
for each row when (old.url <> new.url) execute function forget_receiver();
