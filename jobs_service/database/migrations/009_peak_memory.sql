-- Most memory that one GPU held, GiB, as the trainer measured it: what finished jobs teach of memory.
alter table lora_training_jobs
    add column peak_memory_gib double precision,
    add constraint lora_training_jobs_peak_memory_check check (peak_memory_gib > 0 and peak_memory_gib <= 10000);
grant update (peak_memory_gib) on lora_training_jobs to pipeline_worker;
grant select (peak_memory_gib) on lora_training_jobs to pipeline_service;
