import type { ReactNode } from "react";

import type { Job } from "@/api/types";
import { duration, money, moneyChange } from "@/lib/format";
import { cn } from "@/lib/cn";
import { Panel } from "./panel";

/** The cost of a job, compared with its estimate and its limit. */
export function CostPanel({ job }: { job: Job }) {
  const isFinal = job.final_cost !== null;
  const cost = job.final_cost ?? job.current_cost;
  const estimate = job.estimated_total_cost;
  const limit = job.max_cost_usd;
  const scale = Math.max(cost, estimate, limit ?? 0, 0.01);
  const over = cost > estimate;
  return (
    <Panel title="Cost">
      <p className="figures text-4xl leading-none font-semibold tracking-tight">{money(cost)}</p>
      <p className="mt-1.5 text-[0.8125rem] text-soft">{isFinal ? "final" : "so far"}</p>
      <div aria-hidden className="relative mt-5 h-2 rounded-full bg-sunken inset-ring inset-ring-line">
        <div
          className={cn("h-full rounded-full transition-[width] duration-500", over ? "bg-warn" : "bg-brand")}
          style={{ width: `${(cost / scale) * 100}%` }}
        />
        <Mark position={estimate / scale} className="bg-ink" />
        {limit !== null && <Mark position={limit / scale} className="bg-bad" />}
      </div>
      <dl className="mt-5 text-sm">
        <Line name="Estimated" mark="bg-ink">
          {money(estimate)}
        </Line>
        {job.forecast && (
          <Line name="80 % range">
            {money(job.forecast.cost.p10)} – {money(job.forecast.cost.p90)}
          </Line>
        )}
        {job.reforecast && !isFinal && (
          <>
            <Line name="Forecast at the measured speed">{money(job.reforecast.cost.p50)}</Line>
            <Line name="80 % range of it">
              {money(job.reforecast.cost.p10)} – {money(job.reforecast.cost.p90)}
            </Line>
          </>
        )}
        {job.quote && <Line name="Quoted">{money(job.quote.cost_p50)}</Line>}
        {limit !== null && (
          <Line name="Cost limit" mark="bg-bad">
            {money(limit)}
            {job.cost_limit_share !== null && ` (${Math.round(job.cost_limit_share * 100)} % used)`}
          </Line>
        )}
        {job.max_duration_seconds !== null && <Line name="Duration limit">{duration(job.max_duration_seconds / 3600)}</Line>}
        <Line name="GPU time">{job.billed_seconds > 0 ? duration(job.billed_seconds / 3600) : "none yet"}</Line>
        {job.client_estimated_cost !== null && job.estimate_differs && (
          <Line name="Client’s estimate">{money(job.client_estimated_cost)}</Line>
        )}
        <Line name={isFinal ? "Final cost" : "Cost so far"}>{money(cost)}</Line>
        {isFinal && <Line name="Difference from the estimate">{moneyChange(cost - estimate)}</Line>}
      </dl>
    </Panel>
  );
}

function Mark({ position, className }: { position: number; className: string }) {
  return <div className={cn("absolute -top-1 h-4 w-0.5 -translate-x-1/2 rounded", className)} style={{ left: `${position * 100}%` }} />;
}

function Line({ name, mark, children }: { name: string; mark?: string; children: ReactNode }) {
  return (
    <div className="flex min-h-8 items-center justify-between gap-4">
      <dt className="flex items-center gap-2 text-soft">
        {name}
        {mark && <span aria-hidden className={cn("h-3 w-0.5 rounded", mark)} />}
      </dt>
      <dd className="figures font-medium">{children}</dd>
    </div>
  );
}
