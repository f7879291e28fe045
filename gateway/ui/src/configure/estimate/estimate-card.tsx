import { ChevronUp, LoaderCircle, Rocket } from "lucide-react";
import { useState, type ReactNode } from "react";

import { explain, type ApiError } from "@/api/errors";
import type { Estimate } from "@/api/types";
import { Button } from "@/components/ui/button";
import { Skeleton } from "@/components/ui/skeleton";
import { cn } from "@/lib/cn";
import { count, day, duration, money, moneyChange } from "@/lib/format";
import { ForecastDetails, ForecastSummary } from "./forecast";

type Props = {
  estimate: Estimate | undefined;
  /** Whether it has a range, or will. */
  isForecast: boolean;
  isCurrent: boolean;
  isEstimating: boolean;
  error: ApiError | null;
  onRetry: () => void;
  change: number | null;
  /** Why there is nothing to estimate; null when there is. */
  obstacle: string | null;
  /** Why the job cannot be started although it has a price. */
  warning: string | null;
  quote: ReactNode;
  canStart: boolean;
  isStarting: boolean;
  onStart: () => void;
  onCancel: () => void;
};

/** The price and the Start button: beside the form, or on a phone at the bottom of the screen, always in view. */
export function EstimateCard(props: Props) {
  const { estimate, isCurrent, isEstimating, error, obstacle, change } = props;
  const [open, setOpen] = useState(false);
  const stale = !isCurrent || isEstimating;
  const shown = error ? undefined : estimate;
  const details = shown?.training_details;
  const said =
    shown && !stale
      ? `Estimated total ${money(shown.estimated_cost)}, ${duration(shown.estimated_duration_hours)}` +
        (change ? `, ${moneyChange(change)} since your last change` : "")
      : "";
  return (
    <aside
      aria-label="Estimate"
      className="fixed inset-x-0 bottom-0 z-20 border-t border-line bg-card px-4 pt-3 pb-[max(0.75rem,env(safe-area-inset-bottom))] shadow-pop lg:sticky lg:inset-auto lg:top-20 lg:rounded-[0.875rem] lg:border lg:max-h-[calc(100dvh-6.5rem)] lg:overflow-y-auto lg:p-5 lg:shadow-card"
    >
      <div className="mx-auto grid max-w-2xl grid-cols-[minmax(0,1fr)_auto_auto] items-center gap-x-3 lg:max-w-none lg:grid-cols-1">
        <div className="flex items-center gap-2 max-lg:hidden">
          <h2 className="font-semibold tracking-tight">Estimate</h2>
          <Spinner on={isEstimating} />
        </div>

          <div className="min-w-0 lg:mt-2">
            <div className="flex h-9 items-center gap-2 lg:h-11">
              {shown ? (
                <span
                  data-testid="total"
                  className={cn(
                    "figures text-[1.625rem] leading-none font-semibold tracking-tight transition-opacity lg:text-4xl",
                    stale && "opacity-65",
                  )}
                >
                  {money(shown.estimated_cost)}
                </span>
              ) : obstacle ?? error ? (
                <span className="text-2xl leading-none font-semibold text-soft lg:text-4xl">–</span>
              ) : (
                <Skeleton className="h-8 w-28 lg:h-9 lg:w-36" />
              )}
              <span className="lg:hidden">
                <Spinner on={isEstimating} />
              </span>
            </div>
            {/* Always a line high, so that nothing moves when the price does. */}
            <p className="figures h-5 truncate text-[0.8125rem] text-soft">
              {shown && props.warning && <span className="text-bad lg:hidden">Does not fit into memory</span>}
              {shown && !props.warning && (
                <span className="lg:hidden">
                  {duration(shown.estimated_duration_hours)}
                  {change !== null && change !== 0 && !stale && " · "}
                </span>
              )}
              {change !== null && change !== 0 && shown && !stale && (
                <span className={change > 0 ? "text-warn" : "text-good"}>
                  {moneyChange(change)}
                  <span className="max-sm:hidden"> since your last change</span>
                </span>
              )}
            </p>
          </div>
          <Button
            variant="ghost"
            size="icon"
            className="lg:hidden"
            aria-expanded={open}
            aria-controls="estimate-details"
            aria-label={open ? "Hide the details" : "Show the details"}
            onClick={() => setOpen(!open)}
          >
            <ChevronUp aria-hidden className={cn("transition-transform", open && "rotate-180")} />
          </Button>

        <div
          id="estimate-details"
          className={cn(
            "max-lg:order-last max-lg:col-span-3 max-lg:max-h-[60dvh] max-lg:overflow-y-auto lg:block", !open && "max-lg:hidden")}
        >
          {error && !isEstimating ? (
            <div role="alert" className="mt-3 rounded-xl bg-bad-soft px-4 py-3 text-sm text-bad">
              <p className="font-medium">{explain(error).title}</p>
              <p className="mt-0.5">{explain(error).description}</p>
              <Button size="small" className="mt-3" onClick={props.onRetry}>
                Estimate again
              </Button>
            </div>
          ) : obstacle ? (
            <p className="mt-3 rounded-xl bg-sunken px-4 py-3 text-sm text-pretty text-soft">{obstacle}</p>
          ) : (
            <>
              {shown?.forecast ? <ForecastSummary forecast={shown.forecast} /> : props.isForecast && <Skeleton className="mt-3 h-24 w-full" />}
            <dl className={cn("mt-2 transition-opacity", stale && "opacity-65")}>
              <Line name="Compute">{shown?.cost_breakdown && money(shown.cost_breakdown.compute)}</Line>
              <Line name="Storage">{shown?.cost_breakdown && money(shown.cost_breakdown.storage)}</Line>
              <Line name="Total" strong>
                {shown && money(shown.estimated_cost)}
              </Line>
              <Line name="Duration" apart>
                {shown && hours(shown.estimated_duration_hours)}
              </Line>
              <Line name="Hourly rate">{shown && `${money(shown.hourly_rate)}/h`}</Line>
              <Line name="Total steps">{details && count(details.total_steps)}</Line>
              <Line name="Throughput">{details && `${count(details.estimated_throughput_tokens_per_sec)} tok/s`}</Line>
            </dl>
              {shown?.price && (
                <p className="mt-1 text-xs text-pretty break-words text-soft">
                  GPU price of {shown.price.provider || "this catalogue"}, as of {day(shown.price.date)}.
                </p>
              )}
              {shown?.forecast && <ForecastDetails forecast={shown.forecast} />}
              <div className="mt-2">{props.quote}</div>
              {props.warning && (
                <p role="alert" className="mt-3 rounded-xl bg-bad-soft px-4 py-3 text-sm text-pretty text-bad">
                  {props.warning}
                </p>
              )}
            </>
          )}
        </div>

        <Button
          variant="primary"
          size="large"
          className="max-lg:px-4 lg:mt-4"
          disabled={!props.canStart}
          isBusy={props.isStarting}
          onClick={props.onStart}
        >
          {!props.isStarting && <Rocket aria-hidden className="max-[400px]:hidden" />}
          Start Training
        </Button>
        <Button variant="ghost" className="mt-2 max-lg:hidden" onClick={props.onCancel}>
          Cancel
        </Button>
        <p aria-live="polite" className="sr-only">
          {said}
        </p>
      </div>
    </aside>
  );
}

function Spinner({ on }: { on: boolean }) {
  return (
    <LoaderCircle
      role={on ? "img" : undefined}
      aria-label={on ? "Estimating" : undefined}
      aria-hidden={!on}
      data-testid={on ? "estimating" : undefined}
      className={cn("size-4 animate-spin text-brand", !on && "invisible")}
    />
  );
}

/** `0.80 h (48 min)`: as the API says it, and as people do. */
function hours(value: number): string {
  return `${value.toFixed(2)} h (${duration(value)})`;
}

type LineProps = { name: string; strong?: boolean; apart?: boolean; children: string | undefined };

function Line({ name, strong, apart, children }: LineProps) {
  return (
    <div
      className={cn(
        "flex items-center justify-between gap-4 py-1.5 text-sm",
        strong && "font-medium",
        apart && "mt-2 border-t border-line pt-3.5",
      )}
    >
      <dt className={strong ? "" : "text-soft"}>{name}</dt>
      <dd className="figures flex h-5 grow items-center justify-end">
        {/* Another figure is another element: one that only grew would count as moving. */}
        {typeof children === "string" ? <span key={children}>{children}</span> : <Skeleton className="h-3.5 w-16" />}
      </dd>
    </div>
  );
}
