-- What a finished job teaches depends on what its speed depended on, and on which numbers it was forecast with.
alter table lora_training_jobs
    add column forecast_slopes double precision[],
    add column forecast_model text,
    add constraint lora_training_jobs_slopes_check check (cardinality(forecast_slopes) <= 100);
grant select (forecast_slopes, forecast_model) on lora_training_jobs to pipeline_service;
