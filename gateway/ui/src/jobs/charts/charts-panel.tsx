import { lazy, Suspense } from "react";

import type { Job } from "@/api/types";
import { Skeleton } from "@/components/ui/skeleton";
import { Panel } from "@/jobs/details/panel";
import { useJobMetrics } from "@/jobs/queries";
import { MetricsCsvButton } from "@/jobs/result/metrics-csv-button";
import { chunk } from "@/lib/chunk";
import { chartsOf } from "./series";

// The chart library is loaded with the first chart.
const Charts = lazy(async () => ({ default: (await chunk(() => import("./charts"))).Charts }));

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
    <Panel title="Metrics" aside={<MetricsCsvButton jobId={job.id}>CSV</MetricsCsvButton>}>
      <Suspense fallback={<Skeleton className="h-36 w-full" />}>
        <Charts charts={charts} syncKey={job.id} />
      </Suspense>
    </Panel>
  );
}
