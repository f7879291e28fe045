-- What jobs with a lease cost up to now: read where limits are checked. Its columns are readable to trainers too.
drop view if exists leased_job_costs;
create view leased_job_costs with (security_invoker = true) as
select
    id, max_cost_usd, max_duration_seconds, cost_warned,
    live_cost(current_cost, spent_cost, hourly_rate, billed_from, lease_expires_at, max_cost_usd) as cost,
    live_seconds(billed_seconds, spent_seconds, billed_from, lease_expires_at) as seconds
from lora_training_jobs
where status in ('initializing', 'running');
grant select on leased_job_costs to pipeline_worker, pipeline_system;
