import type { JobStatus } from "@/api/types";
import { Badge, type Tone } from "@/components/ui/badge";
import { capitalise } from "@/lib/format";

const STYLES: Readonly<Record<JobStatus, { tone: Tone; dot: "still" | "pulsing" }>> = {
  queued: { tone: "plain", dot: "still" },
  initializing: { tone: "warn", dot: "pulsing" },
  running: { tone: "live", dot: "pulsing" },
  completed: { tone: "good", dot: "still" },
  failed: { tone: "bad", dot: "still" },
  cancelled: { tone: "plain", dot: "still" },
};

export function JobStatusBadge({ status }: { status: JobStatus }) {
  return <Badge {...STYLES[status]}>{capitalise(status)}</Badge>;
}
