import type { Job } from "@/api/types";
import { money, moneyChange } from "@/lib/format";
import { cn } from "@/lib/cn";
import { Panel } from "./panel";

/** Cost so far beside the estimate. */
export function CostPanel({ job }: { job: Job }) {
  const final = job.final_cost !== null;
  const cost = job.final_cost ?? job.current_cost;
  const estimate = job.estimated_total_cost;
  const scale = Math.max(cost, estimate, 0.01);
  const over = cost > estimate;
  return (
    <Panel title="Cost">
      <p className="figures text-4xl leading-none font-semibold tracking-tight">{money(cost)}</p>
      <p className="mt-1.5 text-[0.8125rem] text-soft">{final ? "in the end" : "so far"}</p>
      <div aria-hidden className="relative mt-5 h-2 rounded-full bg-sunken inset-ring inset-ring-line">
        <div
          className={cn("h-full rounded-full transition-[width] duration-500", over ? "bg-warn" : "bg-brand")}
          style={{ width: `${(cost / scale) * 100}%` }}
        />
        <div className="absolute -top-1 h-4 w-0.5 -translate-x-1/2 rounded bg-ink" style={{ left: `${(estimate / scale) * 100}%` }} />
      </div>
      <dl className="mt-5 text-sm">
        <Line name="Estimated">{money(estimate)}</Line>
        {job.client_estimated_cost !== null && job.estimate_differs && (
          <Line name="Shown when started">{money(job.client_estimated_cost)}</Line>
        )}
        <Line name={final ? "Final cost" : "Cost so far"}>{money(cost)}</Line>
        {final && <Line name="Against the estimate">{moneyChange(cost - estimate)}</Line>}
      </dl>
    </Panel>
  );
}

function Line({ name, children }: { name: string; children: React.ReactNode }) {
  return (
    <div className="flex h-8 items-center justify-between gap-4">
      <dt className="text-soft">{name}</dt>
      <dd className="figures font-medium">{children}</dd>
    </div>
  );
}
