-- Indexes that a claim and what it leaves behind need: found by measuring.

-- A trainer may read the datasets of its own jobs. However many jobs train on a dataset, this finds the trainer's.
create index lora_training_jobs_worker_idx on lora_training_jobs (dataset_id, worker_id);
drop index lora_training_jobs_dataset_idx;
-- The same rows under a condition that says nothing of the queue: claims took it for the queue's own index, and would
-- have gone through all of a user's jobs for one of a GPU type.
create index lora_training_jobs_unfinished_idx on lora_training_jobs (user_id) where completed_at is null;
drop index lora_training_jobs_open_idx;
