import type { Estimate } from "@/api/types";
import { Skeleton } from "@/components/ui/skeleton";
import { cn } from "@/lib/cn";
import { count, duration, money } from "@/lib/format";

type Props = { estimate: Estimate | undefined; isStale: boolean; effectiveBatch: string | null };

/** The figures of an estimate: cost, time, steps and throughput. */
export function EstimateLines({ estimate, isStale, effectiveBatch }: Props) {
  const details = estimate?.training_details;
  const split = estimate?.forecast?.split;
  return (
    <dl className={cn("mt-2 transition-opacity", isStale && "opacity-65")}>
      <Line name="Compute">{estimate?.cost_breakdown && money(estimate.cost_breakdown.compute)}</Line>
      <Line name="Storage">{estimate?.cost_breakdown && money(estimate.cost_breakdown.storage)}</Line>
      <Line name="Total" strong>
        {estimate && money(estimate.estimated_cost)}
      </Line>
      <Line name="Duration" apart>
        {estimate && hours(estimate.estimated_duration_hours)}
      </Line>
      {split &&
        (
          [
            ["Start-up", split.startup],
            ["Training", split.training],
            ["Validation", split.validation],
            ["Saving", split.save],
          ] as const
        ).map(([name, value]) => (
          <Line key={name} name={name} detail>
            {duration(value)}
          </Line>
        ))}
      <Line name="Hourly rate">{estimate && `${money(estimate.hourly_rate)}/h`}</Line>
      <Line name="Total steps">{details && count(details.total_steps)}</Line>
      {effectiveBatch && (
        <Line name="Effective batch" detail>
          {effectiveBatch}
        </Line>
      )}
      <Line name="Throughput">{details && `${count(details.estimated_throughput_tokens_per_sec)} tok/s`}</Line>
    </dl>
  );
}

/** `0.80 h (48 min)`: the API's figure, and a duration. */
function hours(value: number): string {
  return `${value.toFixed(2)} h (${duration(value)})`;
}

type LineProps = {
  name: string;
  strong?: boolean;
  /** Whether a rule separates it from the lines above. */
  apart?: boolean;
  /** Whether it is part of the line above. */
  detail?: boolean;
  children: string | undefined;
};

function Line({ name, strong, apart, detail, children }: LineProps) {
  return (
    <div
      className={cn(
        "flex items-center justify-between gap-4 py-1.5 text-sm",
        strong && "font-medium",
        apart && "mt-2 border-t border-line pt-3.5",
        detail && "py-0.5 pl-3 text-[0.8125rem] text-soft",
      )}
    >
      <dt className={strong ? "" : "text-soft"}>{name}</dt>
      <dd className="figures flex h-5 grow items-center justify-end">
        {/* Another figure is another element: text that only grows counts as a layout shift. */}
        {typeof children === "string" ? <span key={children}>{children}</span> : <Skeleton className="h-3.5 w-16" />}
      </dd>
    </div>
  );
}
