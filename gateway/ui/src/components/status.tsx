import type { DatasetStatus, JobStatus } from "@/api/types";
import { capitalise } from "@/lib/format";
import { Badge, type Tone } from "./ui/badge";

const JOB: Readonly<Record<JobStatus, { tone: Tone; dot: "still" | "pulsing" }>> = {
  queued: { tone: "plain", dot: "still" },
  initializing: { tone: "warn", dot: "pulsing" },
  running: { tone: "live", dot: "pulsing" },
  completed: { tone: "good", dot: "still" },
  failed: { tone: "bad", dot: "still" },
  cancelled: { tone: "plain", dot: "still" },
};

const DATASET: Readonly<Record<DatasetStatus, { tone: Tone; dot: "still" | "pulsing" }>> = {
  uploading: { tone: "live", dot: "pulsing" },
  validating: { tone: "live", dot: "pulsing" },
  ready: { tone: "good", dot: "still" },
  error: { tone: "bad", dot: "still" },
};

export function JobBadge({ status }: { status: JobStatus }) {
  return <Badge {...JOB[status]}>{capitalise(status)}</Badge>;
}

export function DatasetBadge({ status }: { status: DatasetStatus }) {
  return <Badge {...DATASET[status]}>{capitalise(status)}</Badge>;
}
