-- Offers of the last minute: a trainer without one counts as gone.
create or replace view live_offers with (security_invoker = true) as
select worker_id, trainer, gpu_type, gpu_count, simulated, seen_at from trainer_offers where seen_at > now() - interval '1 minute';
grant select on live_offers to pipeline_system;
