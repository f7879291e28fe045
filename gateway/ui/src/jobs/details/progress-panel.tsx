import type { Job } from "@/api/types";
import { cn } from "@/lib/cn";
import { aboutDuration, capitalise, count } from "@/lib/format";
import { formatMetric, metricName } from "@/jobs/charts/series";
import { JobProgress } from "@/jobs/job-progress";
import { Fact, Panel } from "./panel";

export function ProgressPanel({ job }: { job: Job }) {
  const metrics = Object.entries(job.current_metrics).filter(([, value]) => typeof value !== "object");
  return (
    <Panel title="Progress" aside={<span className="figures text-sm text-soft">{Math.round(job.progress)} %</span>}>
      <JobProgress job={job} label="Training progress" className="h-2" />
      <p role="status" className="mt-3 text-sm wrap-anywhere text-soft">
        {statusText(job)}
      </p>
      {job.reforecast && !job.is_final && (
        <p className={cn("mt-1 text-sm", job.reforecast.limit || job.reforecast.exceeds_p90 ? "text-warn" : "text-soft")}>
          {job.reforecast.note}
          {job.reforecast.limit && ` It will reach its ${job.reforecast.limit === "cost_limit" ? "cost" : "time"} limit before its end.`}
        </p>
      )}
      {job.error_message && (
        <p role="alert" className="mt-3 rounded-xl bg-bad-soft px-4 py-3 text-sm wrap-anywhere text-bad">
          {job.error_message}
        </p>
      )}
      <dl className="mt-4 grid grid-cols-2 gap-4 border-t border-line pt-4 sm:grid-cols-4">
        <Fact name="Stage">{capitalise(job.current_stage)}</Fact>
        <Fact name="Epoch">
          {job.current_epoch} of {job.total_epochs}
        </Fact>
        <Fact name="Step">
          {count(job.current_step)} of {count(job.total_steps)}
        </Fact>
        <Fact name="Time left">
          {job.is_final ? "none" : job.seconds_left === null ? "unknown yet" : aboutDuration(job.seconds_left / 3600)}
        </Fact>
        {metrics.map(([name, value]) => (
          <Fact key={name} name={metricName(name)}>
            {typeof value === "number" ? formatMetric(name, value) : String(value)}
          </Fact>
        ))}
        <Fact name="Attempt">
          {job.attempt} of {job.max_attempts}
        </Fact>
        {job.trainer && <Fact name="Trainer">{job.simulated ? "Simulated: nothing is trained" : job.trainer}</Fact>}
      </dl>
    </Panel>
  );
}

const REASONS: Readonly<Record<NonNullable<Job["status_reason"]>, string>> = {
  trainer_error: "The trainer reported an error.",
  lease_expired: "The trainer stopped reporting.",
  cost_limit: "It reached its cost limit.",
  duration_limit: "It reached its duration limit.",
  cancelled_by_owner: "You cancelled it.",
  released: "The trainer released it.",
  out_of_memory: "The GPU ran out of memory.",
  not_supported: "The trainer cannot train this configuration.",
};

function statusText(job: Job): string {
  switch (job.status) {
    case "queued": {
      const position = job.queue_position === null ? "" : job.queue_position === 1 ? "Next in the queue. " : `Position ${job.queue_position} in the queue. `;
      return `${position}${job.waiting_reason?.message ?? "Waiting for a trainer."} Queue time is free.`;
    }
    case "initializing":
      return job.waiting_reason === null ? "A trainer is preparing it." : `Waiting for its cluster: ${job.waiting_reason.message} This time is free.`;
    case "running":
      return job.seconds_left === null ? "Training." : `Training, ${aboutDuration(job.seconds_left / 3600)} left.`;
    case "completed":
      if (job.simulated) return "Completed. It was simulated: nothing was trained, so there is no adapter.";
      if (job.artifact_size !== null) return "Completed.";
      return job.artifact_uri ? `Completed. The adapter is at ${job.artifact_uri}` : "Completed. There are no files to download.";
    case "failed":
    case "cancelled":
      return job.status_reason ? REASONS[job.status_reason] : "It has ended.";
  }
}
