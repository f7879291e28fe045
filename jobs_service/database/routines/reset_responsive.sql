-- A webhook with a new URL counts as unresponsive until the new receiver's first response.
create or replace function reset_responsive() returns trigger
language plpgsql
as $$
begin
    new.responsive := false;
    return new;
end
$$;
create or replace trigger reset_responsive before update of url on webhooks
for each row when (old.url <> new.url) execute function reset_responsive();
