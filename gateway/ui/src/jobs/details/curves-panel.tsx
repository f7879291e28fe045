import type { Job } from "@/api/types";
import { LineChart } from "./line-chart";
import { Skeleton } from "@/components/ui/skeleton";
import { useJobMetrics } from "@/jobs/queries";
import { capitalise, count, scientific } from "@/lib/format";
import { Panel } from "./panel";

/** Those that every trainer has come first, in this order; whatever else it measures follows. */
const FIRST = ["loss", "learning_rate", "tokens_per_second"];
const MOST_CURVES = 8;

export function figure(name: string, value: number): string {
  if (name === "learning_rate") return scientific(value);
  if (Math.abs(value) >= 100) return count(value);
  return String(Number(value.toPrecision(4)));
}

export const metricName = (name: string): string => (name === "tokens_per_second" ? "Tokens per second" : capitalise(name.replaceAll("_", " ")));

export function CurvesPanel({ job }: { job: Job }) {
  const query = useJobMetrics(job.id, !job.is_final);
  const points = query.data ?? [];
  const names = [...new Set(points.flatMap(({ values }) => Object.keys(values)))].sort(
    (one, other) => rank(one) - rank(other) || one.localeCompare(other),
  );
  if (query.isPending) {
    return (
      <Panel title="Curves">
        <Skeleton className="h-36 w-full" />
      </Panel>
    );
  }
  if (names.length === 0) return null;
  return (
    <Panel title="Curves">
      <div className="grid gap-5 sm:grid-cols-2 lg:grid-cols-3">
        {names.slice(0, MOST_CURVES).map((name) => (
          <LineChart
            key={name}
            title={metricName(name)}
            xName="step"
            points={points.flatMap(({ step, values }) => {
              const y = values[name];
              return y === undefined ? [] : [{ x: step, y }];
            })}
            format={(value) => figure(name, value)}
            formatX={count}
          />
        ))}
      </div>
    </Panel>
  );
}

function rank(name: string): number {
  const place = FIRST.indexOf(name);
  return place === -1 ? FIRST.length : place;
}
