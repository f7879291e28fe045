-- Checks every change of a job's status and bills its lease, so that no statement can get either wrong. Each change of a leased
-- job is billed up to now; the final cost is the cost at the end. An owner may cancel and change no other status. Only an
-- administrator may skip a revision.
create or replace function change_job() returns trigger
language plpgsql
as $$
begin
    if old.status <> new.status and (
        not (old.status, new.status) in (
            ('queued', 'initializing'), ('queued', 'cancelled'),
            ('initializing', 'queued'), ('initializing', 'running'), ('initializing', 'failed'), ('initializing', 'cancelled'),
            ('running', 'queued'), ('running', 'completed'), ('running', 'failed'), ('running', 'cancelled')
        )
    ) or (current_user = 'pipeline_user' and (old.status = 'cancelled' or new.status <> 'cancelled')) then
        raise exception 'a job does not go from % to %', old.status, new.status
            using errcode = 'check_violation', constraint = 'lora_training_jobs_transition_check';
    end if;
    if current_user in ('pipeline_user', 'pipeline_worker') and new.revision <> old.revision + 1 then
        raise exception 'a job does not go from revision % to %', old.revision, new.revision
            using errcode = 'check_violation', constraint = 'lora_training_jobs_revision_check';
    end if;
    if old.lease_expires_at is not null and new.revision <> old.revision then
        new.current_cost := live_cost(
            old.current_cost, old.spent_cost, old.hourly_rate, old.billed_from, old.lease_expires_at, old.max_cost_usd
        );
        new.billed_seconds := live_seconds(
            old.billed_seconds, old.spent_seconds, old.billed_from, old.lease_expires_at
        );
    end if;
    if old.status <> 'completed' and new.status = 'completed' then
        -- Keeping the result costs what was estimated, once, and no more than the owner's limit leaves.
        new.current_cost := least(new.max_cost_usd, new.current_cost + new.storage_usd);
    end if;
    if old.completed_at is null and new.completed_at is not null then
        new.final_cost := new.current_cost;
    end if;
    return new;
end
$$;
create or replace trigger change_job before update of status, revision, lease_expires_at, completed_at on lora_training_jobs
for each row execute function change_job();
