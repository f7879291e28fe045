begin;
insert into lora_training_jobs (
    user_id, dataset_id, preset_id, hyperparameters, gpu_config, total_epochs, total_steps, estimated_total_cost, hourly_rate
)
values (
    'aaaaaaaa-0000-4000-8000-000000000001', 'dddddddd-0000-4000-8000-000000000001', 'balanced',
    '{"batch_size": 4, "epochs": 3, "learning_rate": 5e-5, "rank": 16}', '{"type": "A100-80GB", "count": 2}', 3, 3750, 7.61, 7
)
returning id \gset
insert into job_events (job_id, user_id, revision, type, status, data)
values (:id, 'aaaaaaaa-0000-4000-8000-000000000001', 1, 'queued', 'queued', '{"attempt": 1, "current_cost": 0, "current_stage": "queued"}');
insert into lora_notifications (user_id, type, title, message, priority, action_url, metadata)
values (
    'aaaaaaaa-0000-4000-8000-000000000001', 'job_queued', 'Training Job Queued',
    'Your training job for "Questions" has been queued and will start shortly', 'low', '/training/jobs/' || :id::text, '{}'
);
commit;
