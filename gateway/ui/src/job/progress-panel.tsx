import type { Job } from "@/api/types";
import { Progress } from "@/components/ui/progress";
import { isFinal } from "@/hooks/jobs";
import { capitalise, count } from "@/lib/format";
import { Fact, Panel } from "./panel";

export function ProgressPanel({ job }: { job: Job }) {
  const metrics = Object.entries(job.current_metrics).filter(([, value]) => typeof value !== "object");
  return (
    <Panel
      title="Progress"
      aside={<span className="figures text-sm text-soft">{Math.round(job.progress)} %</span>}
    >
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
        <Fact name="Started again">{job.retry_count === 0 ? "never" : `${job.retry_count} ×`}</Fact>
        {metrics.map(([name, value]) => (
          <Fact key={name} name={capitalise(name.replaceAll("_", " "))}>
            {String(value)}
          </Fact>
        ))}
      </dl>
    </Panel>
  );
}

function said(job: Job): string {
  switch (job.status) {
    case "queued":
      return "Waiting for a trainer. Time in the queue costs nothing.";
    case "initializing":
      return "A trainer took it and is getting ready.";
    case "running":
      return "Training.";
    case "completed":
      return "Done.";
    case "failed":
      return "It ended with an error.";
    case "cancelled":
      return "It was cancelled.";
    default:
      return isFinal(job) ? "It ended." : "It is under way.";
  }
}
