-- GPU time of a job up to now, seconds: earlier attempts, and the time since its lease began to cost. Time after the end of a
-- lease is never billed. `expires` is null without a lease, `started` while the lease does not cost.
create or replace function live_seconds(
    billed double precision, spent double precision, started timestamptz, expires timestamptz
) returns double precision
language sql stable parallel safe
as $$
    select case
        when expires is null then billed
        else spent + greatest(0, extract(epoch from least(now(), expires) - started))::double precision
    end
$$;
