import { lazy, Suspense, useState } from "react";

import type { Job } from "@/api/types";
import { Failed } from "@/components/states";
import { Skeleton } from "@/components/ui/skeleton";
import { colourOf } from "@/jobs/charts/series";
import { Panel } from "@/jobs/details/panel";
import { useMetricsOf } from "@/jobs/queries";
import { chunk } from "@/lib/chunk";
import { overlay } from "./overlay";
import { firstSlots, MAX_CURVES, toggled } from "./runs";

// The chart library is loaded with the first chart.
const Charts = lazy(async () => ({ default: (await chunk(() => import("@/jobs/charts/charts"))).Charts }));

/** Curves of the compared jobs, one above the other. There is a colour for eight: which are shown can be chosen. */
export function Curves({ jobs, names }: { jobs: readonly Job[]; names: ReadonlyMap<string, string> }) {
  const [slots, setSlots] = useState(() => firstSlots(jobs.map(({ id }) => id)));
  const queries = useMetricsOf(jobs);
  const isLoading = queries.some(({ isPending }) => isPending);
  const failed = queries.find(({ isError, data }) => isError && !data);
  const shown = slots.filter((slot) => slot !== null).length;
  const isFull = shown === MAX_CURVES;
  const runs = jobs.flatMap(({ id }, index) => {
    const colour = slots.indexOf(id);
    const points = queries[index]?.data;
    return colour === -1 || !points ? [] : [{ name: names.get(id) ?? id, colour, points }];
  });
  const silent = jobs.filter((_, index) => queries[index]?.data?.length === 0);
  const charts = overlay(runs);
  return (
    <Panel title="Curves">
      <ul className="flex flex-wrap gap-x-5 gap-y-1 text-sm">
        {jobs.map(({ id }) => {
          const colour = slots.indexOf(id);
          return (
            <li key={id} className="max-w-full">
              <label className="flex min-h-8 cursor-pointer items-center gap-2">
                <input
                  type="checkbox"
                  className="size-4 shrink-0 accent-(--brand)"
                  checked={colour !== -1}
                  disabled={colour === -1 && isFull}
                  onChange={() => setSlots(toggled(slots, id))}
                />
                <span aria-hidden className="h-1 w-4 shrink-0 rounded" style={{ background: colour === -1 ? "var(--line)" : `var(${colourOf(colour)})` }} />
                <span className="truncate">{names.get(id)}</span>
              </label>
            </li>
          );
        })}
      </ul>
      {jobs.length > MAX_CURVES && (
        <p role="status" className="mt-2 text-sm text-soft">
          {`The curves of ${shown} of ${jobs.length} jobs are shown. ${
            isFull ? `At most ${MAX_CURVES} jobs are shown at once: clear one to show another.` : "Select another job to show it."
          }`}
        </p>
      )}
      <div className="mt-4">
        {failed ? (
          <Failed error={failed.error} onRetry={() => void failed.refetch()} />
        ) : isLoading ? (
          <Skeleton className="h-56 w-full" />
        ) : charts.length > 0 ? (
          <Suspense fallback={<Skeleton className="h-56 w-full" />}>
            <Charts charts={charts} syncKey="compare" />
          </Suspense>
        ) : (
          <p className="text-sm text-soft">{shown === 0 ? "No job is selected." : "The selected jobs have reported no metrics."}</p>
        )}
      </div>
      {!isLoading && silent.length > 0 && charts.length > 0 && (
        <p className="mt-4 text-sm text-soft">No metrics yet: {silent.map(({ id }) => names.get(id)).join(", ")}.</p>
      )}
    </Panel>
  );
}
