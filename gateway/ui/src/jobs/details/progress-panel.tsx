import type { Job } from "@/api/types";
import { Progress } from "@/components/ui/progress";
import { capitalise, count, duration } from "@/lib/format";
import { figure, metricName } from "./curves-panel";
import { Fact, Panel } from "./panel";

export function ProgressPanel({ job }: { job: Job }) {
  const metrics = Object.entries(job.current_metrics).filter(([, value]) => typeof value !== "object");
  return (
    <Panel title="Progress" aside={<span className="figures text-sm text-soft">{Math.round(job.progress)} %</span>}>
      <Progress label="Training progress" percent={job.progress} className="h-2" />
      <p role="status" className="mt-3 text-sm text-soft">
        {said(job)}
      </p>
      {job.error_message && (
        <p role="alert" className="mt-3 rounded-xl bg-bad-soft px-4 py-3 text-sm break-words text-bad">
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
          {job.is_final ? "none" : job.seconds_left === null ? "not known yet" : `about ${duration(job.seconds_left / 3600)}`}
        </Fact>
        {metrics.map(([name, value]) => (
          <Fact key={name} name={metricName(name)}>
            {typeof value === "number" ? figure(name, value) : String(value)}
          </Fact>
        ))}
        <Fact name="Attempt">
          {job.attempt} of {job.max_attempts}
        </Fact>
        {job.trainer && <Fact name="Trainer">{job.trainer}</Fact>}
      </dl>
    </Panel>
  );
}

const REASONS: Readonly<Record<NonNullable<Job["status_reason"]>, string>> = {
  trainer_error: "Its trainer reported an error.",
  lease_expired: "Its trainer was not heard of in time.",
  cost_limit: "It reached the most that it may cost.",
  duration_limit: "It reached the longest that it may run.",
  cancelled_by_owner: "You cancelled it.",
  released: "Its trainer gave it back.",
};

function said(job: Job): string {
  switch (job.status) {
    case "queued": {
      const place = job.queue_position === null ? "" : job.queue_position === 1 ? "Next in the queue. " : `Number ${job.queue_position} in the queue. `;
      return `${place}${job.waiting_reason?.message ?? "Waiting for a trainer."} Time in the queue costs nothing.`;
    }
    case "initializing":
      return "A trainer took it and is getting ready.";
    case "running":
      return job.seconds_left === null ? "Training." : `Training, about ${duration(job.seconds_left / 3600)} left.`;
    case "completed":
      return job.artifact_uri ? `Done. The adapter is at ${job.artifact_uri}` : "Done.";
    case "failed":
    case "cancelled":
      return job.status_reason ? REASONS[job.status_reason] : "It ended.";
  }
}
