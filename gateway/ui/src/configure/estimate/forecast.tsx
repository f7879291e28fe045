import type { Forecast } from "@/api/types";
import { Badge, type Tone } from "@/components/ui/badge";
import { capitalise, duration, money } from "@/lib/format";
import { ForecastAccuracy } from "./accuracy";

const CONFIDENCE: Readonly<Record<Forecast["confidence"], { tone: Tone; text: string }>> = {
  high: { tone: "good", text: "High confidence" },
  medium: { tone: "warn", text: "Medium confidence" },
  low: { tone: "bad", text: "Low confidence" },
};

/** The 80 % range of a forecast as a bar, and its confidence. */
export function ForecastSummary({ forecast }: { forecast: Forecast }) {
  const { p10, p50, p90 } = forecast.cost;
  const margin = Math.max(p90 - p10, p50 * 0.05) * 0.35;
  const [left, right] = [Math.max(0, p10 - margin), p90 + margin];
  const position = (value: number) => `${((value - left) / (right - left || 1)) * 100}%`;
  const costs = `${money(p10)} – ${money(p90)}`;
  const hours = `${duration(forecast.hours.p10)} – ${duration(forecast.hours.p90)}`;
  const { tone, text } = CONFIDENCE[forecast.confidence];
  return (
    <div className="mt-3">
      <div
        role="img"
        aria-label={`80 % range: between ${money(p10)} and ${money(p90)}; median ${money(p50)}`}
        className="relative h-2 rounded-full bg-sunken inset-ring inset-ring-line"
      >
        <div
          className="absolute h-full rounded-full bg-brand/35"
          style={{ left: position(p10), right: `calc(100% - ${position(p90)})` }}
        />
        {/* Moved by a transform: a change of `left` would count as a shift of the layout. */}
        <div className="absolute -inset-y-1 w-full" style={{ transform: `translateX(${position(p50)})` }}>
          <div className="h-full w-1 -translate-x-1/2 rounded bg-brand" />
        </div>
      </div>
      <p className="mt-2 grid grid-cols-2 text-xs text-soft">
        <span>Cost, 80 % range</span>
        <span>Time, 80 % range</span>
      </p>
      <p className="figures grid grid-cols-2 text-[0.8125rem] text-soft">
        {/* Another text is another element: text that only grows counts as a shift of the layout. */}
        <span key={costs}>{costs}</span>
        <span key={hours}>{hours}</span>
      </p>
      <p className="mt-2.5 min-h-10 text-[0.8125rem] text-pretty text-soft">
        <Badge tone={tone} className="mr-1.5">
          {text}
        </Badge>
        {capitalise(forecast.confidence_reason)}.
      </p>
      <ForecastAccuracy />
      {!forecast.is_quote && <p className="mt-1.5 text-[0.8125rem] text-pretty text-warn">{forecast.note}</p>}
    </div>
  );
}

type DetailsProps = { forecast: Forecast; basis: string };

/** The details of a forecast: steps, range, the values that the Estimator assumed, and what takes the time of a training step. */
export function ForecastDetails({ forecast, basis }: DetailsProps) {
  const { p10, p90 } = forecast.startup_seconds;
  return (
    <details className="mt-2 border-t border-line pt-3 text-[0.8125rem]">
      <summary className="rounded-md font-medium text-soft hover:text-ink">Assumptions</summary>
      <p className="mt-2 text-pretty text-soft">{basis}</p>
      <p className="mt-1.5 text-pretty text-soft">{forecast.steps_note}</p>
      <p className="mt-1.5 text-pretty text-soft">
        The range is calibrated on {forecast.range_sources === 1 ? "one independent source" : `${forecast.range_sources} independent sources`} of
        measured runs. Start-up is assumed: {duration(p10 / 3600)} – {duration(p90 / 3600)}.
      </p>
      <ul className="mt-2 space-y-1.5">
        {forecast.assumptions.map((assumption) => (
          <li key={assumption.field} className="break-words text-soft">
            <span className="text-ink">{capitalise(assumption.field.replace(/^training\./, "").replaceAll("_", " "))}</span>{" "}
            {assumption.value}: {assumption.reason}
          </li>
        ))}
      </ul>
      <p className="mt-3 mb-1 font-medium">Time of a training step</p>
      <ul className="space-y-1">
        {forecast.drivers.map((driver) => (
          <li key={driver.name} className="flex justify-between gap-3">
            <span className="text-soft">{capitalise(driver.title)}</span>
            <span className="figures">{Math.round(driver.share * 100)} %</span>
          </li>
        ))}
      </ul>
      {forecast.learned_from_jobs > 0 && (
        <p className="mt-2 text-soft">Corrected by {forecast.learned_from_jobs} completed jobs of this kind
          {forecast.learned_software && `, trained with ${forecast.learned_software}`}.</p>
      )}
    </details>
  );
}
