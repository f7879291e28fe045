-- What was used in an hour that is over is forgotten.

create index webhook_uses_since_idx on webhook_uses (since);
create policy all_uses on webhook_uses to pipeline_system using (true) with check (true);
grant select, delete on webhook_uses to pipeline_system;
