-- A replaced secret stays valid for a day, so that receivers can change over. Its owner cannot read either.
create or replace function keep_old_secret() returns trigger
language plpgsql
as $$
begin
    new.old_secret := old.secret;
    new.old_secret_until := now() + interval '24 hours';
    return new;
end
$$;
create or replace trigger keep_old_secret before update of secret on webhooks
for each row execute function keep_old_secret();
