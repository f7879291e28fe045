import { ChevronUp, LoaderCircle, Rocket } from "lucide-react";
import { useState, type ReactNode } from "react";

import { explain, type ApiError } from "@/api/errors";
import type { Estimate } from "@/api/types";
import { Button } from "@/components/ui/button";
import { Skeleton } from "@/components/ui/skeleton";
import { cn } from "@/lib/cn";
import { capitalise, day, duration, money, moneyChange } from "@/lib/format";
import { EstimateLines } from "./estimate-lines";
import { ForecastDetails, ForecastSummary } from "./forecast";
import type { PriceChange } from "./price-change";

type Props = {
  estimate: Estimate | undefined;
  /** Whether the request names a base model, so that the estimate has or will have a range. */
  isForecast: boolean;
  isCurrent: boolean;
  isEstimating: boolean;
  error: ApiError | null;
  onRetry: () => void;
  change: PriceChange | null;
  /** What is missing for an estimate; null if nothing is. */
  missing: string | null;
  /** Why an estimated job cannot be started; null if it can. */
  warning: string | null;
  /** Number of training pairs per optimizer step, in words. */
  effectiveBatch: string | null;
  /** The quote, alternatives and code of the configuration. */
  children: ReactNode;
  canStart: boolean;
  isStarting: boolean;
  onStart: () => void;
  onCancel: () => void;
};

/** The price and the Start button: beside the form, or on a phone at the bottom of the screen, always in view. */
export function EstimateCard(props: Props) {
  const { estimate, isCurrent, isEstimating, error, missing, change } = props;
  const [open, setOpen] = useState(false);
  const isStale = !isCurrent || isEstimating;
  const shown = error ? undefined : estimate;
  const total = shown && !isStale ? `Estimated total ${money(shown.estimated_cost)}, ${duration(shown.estimated_duration_hours)}` : "";
  return (
    <aside
      aria-label="Estimate"
      className="fixed inset-x-0 bottom-0 z-20 border-t border-line bg-card px-4 pt-3 pb-[max(0.75rem,env(safe-area-inset-bottom))] shadow-pop lg:sticky lg:inset-auto lg:top-20 lg:rounded-[0.875rem] lg:border lg:flex lg:max-h-[calc(100dvh-11rem)] lg:overflow-hidden lg:p-5 lg:shadow-card"
    >
      <div className="mx-auto grid max-w-2xl grid-cols-[minmax(0,1fr)_auto_auto] items-center gap-x-3 lg:flex lg:w-full lg:max-w-none lg:flex-col lg:items-stretch">
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
                  isStale && "opacity-65",
                )}
              >
                {money(shown.estimated_cost)}
              </span>
            ) : missing ?? error ? (
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
            {shown && (
              <span className="lg:hidden">
                {duration(shown.estimated_duration_hours)}
                {change !== null && !isStale && " · "}
              </span>
            )}
            {change !== null && shown && !isStale && (
              <span className={change.amount > 0 ? "text-warn" : "text-good"}>
                {moneyChange(change.amount)}
                <span className="max-sm:hidden"> since your last change</span>
              </span>
            )}
          </p>
          {change?.reason && shown && !isStale && <p className="text-xs text-pretty text-soft max-lg:hidden">{change.reason}</p>}
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
            "max-lg:order-last max-lg:col-span-3 max-lg:max-h-[60dvh] max-lg:overflow-y-auto lg:-mx-5 lg:block lg:min-h-0 lg:overflow-y-auto lg:px-5",
            !open && "max-lg:hidden",
          )}
        >
          {error && !isEstimating ? (
            <div role="alert" className="mt-3 rounded-xl bg-bad-soft px-4 py-3 text-sm text-bad">
              <p className="font-medium">{explain(error).title}</p>
              <p className="mt-0.5">{explain(error).description}</p>
              <Button size="small" className="mt-3" onClick={props.onRetry}>
                Estimate again
              </Button>
            </div>
          ) : missing ? (
            <p className="mt-3 rounded-xl bg-sunken px-4 py-3 text-sm text-pretty text-soft">{missing}</p>
          ) : (
            <>
              {shown?.forecast ? (
                <ForecastSummary forecast={shown.forecast} />
              ) : props.isForecast ? (
                <Skeleton className="mt-3 h-24 w-full" />
              ) : (
                // As high as its text, so that nothing moves when it arrives.
                <p className="mt-2 min-h-15 text-[0.8125rem] text-pretty text-soft">{shown?.basis}</p>
              )}
              <EstimateLines estimate={shown} isStale={isStale} effectiveBatch={props.effectiveBatch} />
              {shown?.price && (
                <p className="mt-1 text-xs text-pretty break-words text-soft">
                  GPU price: {shown.price.provider || "catalogue"}, as of {day(shown.price.date)}.
                </p>
              )}
              {shown && !isStale && shown.warnings.length > 0 && <Warnings warnings={shown.warnings} />}
              {shown?.forecast && <ForecastDetails forecast={shown.forecast} basis={shown.basis} />}
              {props.children}
              {props.warning && (
                <p role="alert" className="mt-3 rounded-xl bg-bad-soft px-4 py-3 text-sm text-pretty text-bad">
                  {props.warning}
                </p>
              )}
            </>
          )}
        </div>
        {/* Beside the form the details scroll between the price and this. On a phone its parts are the grid's own. */}
        <div className="max-lg:contents lg:-mx-5 lg:mt-3 lg:-mb-5 lg:grid lg:shrink-0 lg:grid-cols-[minmax(0,1fr)_auto] lg:gap-x-2 lg:border-t lg:border-line lg:px-5 lg:pt-4 lg:pb-3">
          <Button
            variant="primary"
            size="large"
            className="max-lg:px-4"
            disabled={!props.canStart}
            aria-describedby="start-blocked"
            isBusy={props.isStarting}
            onClick={props.onStart}
          >
            {!props.isStarting && <Rocket aria-hidden className="max-[400px]:hidden" />}
            Start Training
          </Button>
          <Button variant="ghost" className="h-11 max-lg:hidden" onClick={props.onCancel}>
            Cancel
          </Button>
          {/* Always a line high, as above. */}
          <p id="start-blocked" className="min-h-5 truncate text-[0.8125rem] text-soft max-lg:order-first max-lg:col-span-3 max-lg:empty:hidden lg:col-span-2 lg:mt-1.5">
            {!props.canStart && blockedReason(props)}
          </p>
        </div>
        <p aria-live="polite" className="sr-only">
          {total && change ? `${total}, ${moneyChange(change.amount)} since your last change` : total}
        </p>
      </div>
    </aside>
  );
}

/** Settings that are likely to train badly, each with its source. They do not prevent a start. */
function Warnings({ warnings }: { warnings: Estimate["warnings"] }) {
  return (
    <ul aria-label="Warnings" className="mt-3 space-y-2 rounded-xl bg-warn-soft px-4 py-3 text-[0.8125rem] text-pretty text-warn">
      {warnings.map((warning) => (
        <li key={warning.field} className="break-words">
          {capitalise(warning.field.replace(/^.*\./, "").replaceAll("_", " "))} {warning.message} <span className="text-soft">({warning.source})</span>
        </li>
      ))}
    </ul>
  );
}

/** Why the Start button is disabled, in a few words; the card has the rest. */
function blockedReason({ isStarting, missing, error, isEstimating, warning }: Props): string {
  if (isStarting) return "Starting…";
  if (missing) return missing;
  if (error && !isEstimating) return "There is no estimate.";
  if (warning) return "Does not fit into memory";
  return "Waiting for the estimate…";
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
