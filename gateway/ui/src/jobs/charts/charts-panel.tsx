import { Download } from "lucide-react";
import { lazy, Suspense } from "react";

import type { Job } from "@/api/types";
import { Button } from "@/components/ui/button";
import { Skeleton } from "@/components/ui/skeleton";
import { Panel } from "@/jobs/details/panel";
import { useJobMetrics } from "@/jobs/queries";
import { downloadText } from "@/lib/download";
import { chartsOf, metricsCsv } from "./series";

// The chart library is loaded with the first chart.
const Charts = lazy(async () => ({ default: (await import("./charts")).Charts }));

/** Charts of the metrics that a job's trainer reports. */
export function ChartsPanel({ job }: { job: Job }) {
  const query = useJobMetrics(job.id, !job.is_final);
  const points = query.data ?? [];
  if (query.isPending) {
    return (
      <Panel title="Metrics">
        <Skeleton className="h-36 w-full" />
      </Panel>
    );
  }
  const charts = chartsOf(points);
  if (charts.length === 0) return null;
  return (
    <Panel
      title="Metrics"
      aside={
        <Button size="small" variant="ghost" onClick={() => downloadText(metricsCsv(points), `metrics-${job.id}.csv`, "text/csv")}>
          <Download aria-hidden />
          CSV
        </Button>
      }
    >
      <Suspense fallback={<Skeleton className="h-36 w-full" />}>
        <Charts charts={charts} syncKey={job.id} />
      </Suspense>
    </Panel>
  );
}
