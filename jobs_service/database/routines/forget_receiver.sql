-- A new URL is another receiver, and does not count as responsive before its first response.
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
