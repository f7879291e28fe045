import type { Accuracy } from "@/api/types";
import { Skeleton } from "@/components/ui/skeleton";
import { useEstimateAccuracy } from "./queries";
import { count, month, percent } from "@/lib/format";

/** Share of jobs that a range from P10 to P90 is meant to contain. */
const TARGET = 0.8;
const HEIGHT = 56;
const SLOT = 20;

/** How accurate the forecasts of completed jobs were. */
export function ForecastAccuracy() {
  const { data, isError } = useEstimateAccuracy();
  if (isError) return null;
  if (!data) return <Skeleton className="mt-2.5 h-5 w-full" />;
  return (
    <details className="mt-2.5 text-[0.8125rem]">
      <summary className="rounded-md text-soft hover:text-ink">
        {data.overall
          ? `Forecast accuracy: ${percent(data.overall.inside_p10_p90)} of ${count(data.overall.jobs)} jobs in range`
          : "Forecast accuracy: not enough completed jobs"}
      </summary>
      {data.overall ? <Figures overall={data.overall} months={data.months} /> : <p className="mt-1.5 text-pretty text-soft">{data.note}</p>}
    </details>
  );
}

type FiguresProps = { overall: NonNullable<Accuracy["overall"]>; months: Accuracy["months"] };

function Figures({ overall, months }: FiguresProps) {
  return (
    <>
      <p className="mt-1.5 text-pretty text-soft">
        {percent(overall.inside_p10_p90)} of {count(overall.jobs)} completed jobs were within their range; the target is{" "}
        {percent(TARGET)}. Median error: {percent(overall.median_error)}.
      </p>
      {months.length > 0 && (
        <figure className="mt-2.5">
          <svg
            width="100%"
            height={HEIGHT}
            viewBox={`0 0 ${months.length * SLOT} ${HEIGHT}`}
            preserveAspectRatio="none"
            role="img"
            aria-label={months.map((entry) => `${month(entry.month)}: ${percent(entry.inside_p10_p90)} of ${count(entry.jobs)} jobs, median error ${percent(entry.median_error)}`).join("; ")}
          >
            {months.map((entry, index) => (
              <rect
                key={entry.month}
                x={index * SLOT + 2}
                width={SLOT - 4}
                y={HEIGHT * (1 - entry.inside_p10_p90)}
                height={HEIGHT * entry.inside_p10_p90}
                rx="1.5"
                className="fill-brand/55"
              />
            ))}
            <line
              x2={months.length * SLOT}
              y1={HEIGHT * (1 - TARGET)}
              y2={HEIGHT * (1 - TARGET)}
              stroke="var(--ink)"
              strokeDasharray="4 4"
              vectorEffect="non-scaling-stroke"
            />
          </svg>
          <figcaption className="mt-1 flex justify-between gap-3 text-xs text-soft">
            <span>{month(months[0]?.month ?? "")}</span>
            <span>share in range, by month</span>
            <span>{months.length > 1 && month(months.at(-1)?.month ?? "")}</span>
          </figcaption>
        </figure>
      )}
    </>
  );
}
