import type { DatasetStatus } from "@/api/types";
import { Badge, type Tone } from "@/components/ui/badge";
import { capitalise } from "@/lib/format";

const STYLES: Readonly<Record<DatasetStatus, { tone: Tone; dot: "still" | "pulsing" }>> = {
  uploading: { tone: "live", dot: "pulsing" },
  validating: { tone: "live", dot: "pulsing" },
  ready: { tone: "good", dot: "still" },
  error: { tone: "bad", dot: "still" },
};

export function DatasetStatusBadge({ status }: { status: DatasetStatus }) {
  return <Badge {...STYLES[status]}>{capitalise(status)}</Badge>;
}
