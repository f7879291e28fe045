import type { Accuracy } from "@/api/types";
import { Skeleton } from "@/components/ui/skeleton";
import { useEstimateAccuracy } from "./accuracy-query";
import { count, month, percent } from "@/lib/format";

/** What a range from P10 to P90 promises. */
const PROMISED = 0.8;
const HEIGHT = 56;
const SLOT = 20;

/** How earlier forecasts turned out, beside the one that is to be judged. */
export function EarlierForecasts() {
  const { data, isError } = useEstimateAccuracy();
  if (isError) return null;
  if (!data) return <Skeleton className="mt-2.5 h-5 w-full" />;
  return (
    <details className="mt-2.5 text-[0.8125rem]">
      <summary className="rounded-md text-soft hover:text-ink">
        {data.overall
          ? `Earlier forecasts: ${percent(data.overall.inside_p10_p90)} of ${count(data.overall.jobs)} in range`
          : "Earlier forecasts: no figure yet"}
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
        {percent(overall.inside_p10_p90)} of {count(overall.jobs)} finished jobs took a time within their range; it promises{" "}
        {percent(PROMISED)}. Half of the forecasts were off by at most {percent(overall.median_error)}.
      </p>
      {months.length > 0 && (
        <figure className="mt-2.5">
          <svg
            width="100%"
            height={HEIGHT}
            viewBox={`0 0 ${months.length * SLOT} ${HEIGHT}`}
            preserveAspectRatio="none"
            role="img"
            aria-label={months.map((one) => `${month(one.month)}: ${percent(one.inside_p10_p90)} of ${count(one.jobs)} jobs, median error ${percent(one.median_error)}`).join("; ")}
          >
            {months.map((one, index) => (
              <rect
                key={one.month}
                x={index * SLOT + 2}
                width={SLOT - 4}
                y={HEIGHT * (1 - one.inside_p10_p90)}
                height={HEIGHT * one.inside_p10_p90}
                rx="1.5"
                className="fill-brand/55"
              />
            ))}
            <line
              x2={months.length * SLOT}
              y1={HEIGHT * (1 - PROMISED)}
              y2={HEIGHT * (1 - PROMISED)}
              stroke="var(--ink)"
              strokeDasharray="4 4"
              vectorEffect="non-scaling-stroke"
            />
          </svg>
          <figcaption className="mt-1 flex justify-between gap-3 text-xs text-soft">
            <span>{month(months[0]?.month ?? "")}</span>
            <span>share within, by month</span>
            <span>{months.length > 1 && month(months.at(-1)?.month ?? "")}</span>
          </figcaption>
        </figure>
      )}
    </>
  );
}
