import { useQuery } from "@tanstack/react-query";
import { Download } from "lucide-react";

import { client, dataOf } from "@/api/client";
import type { ApiError } from "@/api/errors";
import type { Job, JobArtifact, JobMetrics } from "@/api/types";
import { CodeTabs } from "@/components/code-tabs";
import { Failed } from "@/components/states";
import { Button } from "@/components/ui/button";
import { Skeleton } from "@/components/ui/skeleton";
import { formatMetric } from "@/jobs/charts/series";
import { Fact, Panel } from "@/jobs/details/panel";
import { useJobMetrics } from "@/jobs/queries";
import { bytes, count } from "@/lib/format";
import { MetricsCsvButton } from "./metrics-csv-button";
import { ARCHIVE, downloadPath, usageOf } from "./usage";

/** The result of a completed job: its files, how good it is, and how to use it. Nothing where there are no files. */
export function ResultPanel({ job }: { job: Job }) {
  const query = useQuery<JobArtifact, ApiError>({
    queryKey: ["jobs", "artifact", job.id],
    queryFn: ({ signal }) => dataOf(client.GET("/api/jobs/{id}/artifact", { params: { path: { id: job.id } }, signal })),
  });
  return (
    <Panel title="Result" aside={query.data && <span className="figures text-sm text-soft">{bytes(query.data.size)}</span>}>
      {query.data ? (
        <Result job={job} artifact={query.data} />
      ) : query.isError ? (
        <Failed error={query.error} onRetry={() => void query.refetch()} />
      ) : (
        <Skeleton className="h-56 w-full" />
      )}
    </Panel>
  );
}

function Result({ job, artifact }: { job: Job; artifact: JobArtifact }) {
  const metrics = useJobMetrics(job.id, false);
  const best = lowestEvalLoss(metrics.data ?? []);
  return (
    <>
      <div className="flex flex-wrap items-center gap-2">
        <Button asChild variant="primary">
          <a href={downloadPath(job.id, ARCHIVE)} download>
            <Download aria-hidden />
            Download {ARCHIVE}
          </a>
        </Button>
        <MetricsCsvButton jobId={job.id}>Metrics (CSV)</MetricsCsvButton>
      </div>
      <dl className="mt-4 grid grid-cols-2 gap-4 border-t border-line pt-4 sm:grid-cols-3">
        <Fact name="Base model">{artifact.base_model}</Fact>
        <Fact name="Weights">
          {`Step ${count(artifact.step)} of ${count(job.total_steps)}`}
        </Fact>
        <Fact name="Best eval loss">
          {metrics.isPending ? "…" : best ? `${formatMetric("eval_loss", best.value)} at step ${count(best.step)}` : "none: no validation"}
        </Fact>
      </dl>
      <h3 className="mt-5 mb-2 text-sm font-medium">Files</h3>
      <ul aria-label="Files" className="max-h-72 divide-y divide-line overflow-y-auto rounded-xl border border-line" tabIndex={0}>
        {artifact.files.map(({ name, size, sha256 }) => (
          <li key={name} className="flex items-center gap-x-4 px-4 py-2 text-sm">
            <div className="min-w-0 grow">
              <a
                href={downloadPath(job.id, name)}
                download
                translate="no"
                className="font-medium text-brand underline-offset-4 wrap-anywhere hover:underline"
              >
                {name}
              </a>
              <p className="truncate font-mono text-xs text-soft" title={sha256}>
                {`SHA-256 ${sha256}`}
              </p>
            </div>
            <span className="figures shrink-0 text-soft">{bytes(size)}</span>
          </li>
        ))}
      </ul>
      <h3 className="mt-5 mb-2 text-sm font-medium">Use it</h3>
      <CodeTabs label="Library" codes={usageOf(job, artifact)} />
    </>
  );
}

/** The lowest eval loss and its step. Downsampling keeps the smallest values of a metric. */
function lowestEvalLoss(points: readonly JobMetrics[]): { step: number; value: number } | null {
  let best: { step: number; value: number } | null = null;
  for (const { step, values } of points) {
    const value = values.eval_loss;
    if (value !== undefined && (best === null || value < best.value)) best = { step, value };
  }
  return best;
}
