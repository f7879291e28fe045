import { Download } from "lucide-react";
import { useMutation } from "@tanstack/react-query";

import { client, dataOf } from "@/api/client";
import { Button } from "@/components/ui/button";
import { metricsCsv } from "@/jobs/charts/series";
import { downloadText } from "@/lib/download";
import { showError } from "@/lib/error-toast";

/** The most values of each metric that a response has. */
const MAX_POINTS = 1000;

/** Saves a job's metrics as a CSV file: a line for each step, up to 1,000 values of each metric. */
export function MetricsCsvButton({ jobId, children }: { jobId: string; children: string }) {
  const download = useMutation({
    mutationFn: () => {
      const params = { path: { id: jobId }, query: { max_points: MAX_POINTS } };
      return dataOf(client.GET("/api/jobs/{id}/metrics", { params }));
    },
    onSuccess: ({ points }) => downloadText(metricsCsv(points), `metrics-${jobId}.csv`, "text/csv"),
    onError: (error) => showError("Not saved", error),
  });
  return (
    <Button size="small" variant="ghost" isBusy={download.isPending} onClick={() => download.mutate()}>
      {!download.isPending && <Download aria-hidden />}
      {children}
    </Button>
  );
}
