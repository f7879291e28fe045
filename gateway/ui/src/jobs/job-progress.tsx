import type { Job } from "@/api/types";
import { Progress } from "@/components/ui/progress";

type Props = { job: Job; label: string; className?: string };

/** How much of a job is done, in the colour of its state. */
export function JobProgress({ job, label, className }: Props) {
  const tone = job.status === "failed" ? "bad" : job.status === "cancelled" ? "plain" : "brand";
  return <Progress label={label} percent={job.progress} tone={tone} {...(className ? { className } : {})} />;
}
