-- Cost of a job up to now, US dollars: the hourly rate frozen at its creation for the time of live_seconds, and never more
-- than the owner's limit.
create or replace function live_cost(
    billed numeric, spent numeric, hourly_rate numeric, started timestamptz, expires timestamptz, max_cost numeric
) returns numeric
language sql stable parallel safe
as $$
    select case
        when expires is null then billed
        else least(max_cost, spent + hourly_rate * greatest(0, extract(epoch from least(now(), expires) - started)) / 3600)
    end
$$;
