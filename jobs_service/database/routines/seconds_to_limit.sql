-- GPU time left until the nearer of a job's limits of cost and time, seconds; null without limits.
create or replace function seconds_to_limit(
    cost numeric, hourly_rate numeric, max_cost numeric, seconds double precision, max_seconds bigint
) returns double precision
language sql immutable parallel safe
as $$
    select greatest(0, nearer)
    from (select least(
        ((max_cost - cost) / nullif(hourly_rate, 0) * 3600)::double precision, (max_seconds - seconds)::double precision
    )) as limits (nearer)
    where nearer is not null
$$;
