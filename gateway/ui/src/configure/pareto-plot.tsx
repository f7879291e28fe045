import { useState, type KeyboardEvent } from "react";

import type { ComparisonPoint } from "@/api/types";
import { Button } from "@/components/ui/button";
import { cn } from "@/lib/cn";
import { duration, money } from "@/lib/format";
import { named } from "./alternatives";

const WIDTH = 640;
const HEIGHT = 300;
const PAD = { top: 12, right: 14, bottom: 34, left: 50 };

type Props = {
  points: readonly ComparisonPoint[];
  isCurrent: (point: ComparisonPoint) => boolean;
  onChoose: (point: ComparisonPoint) => void;
};

/** Cost against time, both on logarithmic scales: the front is drawn, what does not fit is hollow. */
export function ParetoPlot({ points, isCurrent, onChoose }: Props) {
  const [at, setAt] = useState<number | null>(null);
  const order = points.map((point, index) => ({ point, index })).sort((one, other) => time(one.point) - time(other.point));
  const x = scale(points.map(time), PAD.left, WIDTH - PAD.right);
  const y = scale(points.map(cost), HEIGHT - PAD.bottom, PAD.top);
  const front = order.filter(({ point }) => point.is_pareto).map(({ point }) => point);
  const chosen = points.findIndex(isCurrent);
  const shownIndex = at ?? (chosen === -1 ? (order[0]?.index ?? 0) : chosen);
  const shown = points[shownIndex];
  if (!shown) return null;

  const step = (event: KeyboardEvent) => {
    const place = order.findIndex(({ index }) => index === shownIndex);
    const to = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: order.length - 1 }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      setAt(order[Math.min(order.length - 1, Math.max(0, to))]?.index ?? null);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      onChoose(shown);
    }
  };

  return (
    <div>
      <svg
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        role="slider"
        tabIndex={0}
        aria-label="Cost against time of all alternatives. Arrow keys go through them by time, Enter chooses one"
        aria-valuemin={1}
        aria-valuemax={order.length}
        aria-valuenow={order.findIndex(({ index }) => index === shownIndex) + 1}
        aria-valuetext={`${named(shown)}: ${money(shown.estimated_cost)}, ${duration(shown.estimated_duration_hours)}${shown.verdict === "does_not_fit" ? ", does not fit" : shown.is_pareto ? ", on the front" : ""}`}
        className="w-full rounded-lg"
        onKeyDown={step}
      >
        {ticks(points.map(cost)).map((value) => (
          <g key={value}>
            <line x1={PAD.left} x2={WIDTH - PAD.right} y1={y(value)} y2={y(value)} stroke="var(--line)" />
            <text x={PAD.left - 8} y={y(value) + 4} textAnchor="end" className="figures fill-soft text-[11px]">
              ${value}
            </text>
          </g>
        ))}
        {ticks(points.map(time)).map((value) => (
          <text key={value} x={x(value)} y={HEIGHT - 14} textAnchor="middle" className="figures fill-soft text-[11px]">
            {duration(value)}
          </text>
        ))}
        <path
          d={front.map((point, index) => `${index === 0 ? "M" : "L"}${x(time(point)).toFixed(1)} ${y(cost(point)).toFixed(1)}`).join("")}
          fill="none"
          stroke="var(--brand)"
          strokeWidth="1.5"
          strokeDasharray="5 4"
        />
        {points.map((point, index) => (
          <circle
            key={named(point)}
            data-testid={`point-${named(point)}`}
            cx={x(time(point))}
            cy={y(cost(point))}
            r={point.is_pareto ? 5.5 : 4}
            className={cn("cursor-pointer", index === shownIndex && "stroke-ink")}
            fill={point.verdict === "does_not_fit" ? "var(--card)" : point.is_pareto ? "var(--brand)" : "var(--line-strong)"}
            stroke={point.verdict === "does_not_fit" ? "var(--bad)" : "var(--card)"}
            strokeWidth="1.5"
            onPointerEnter={() => setAt(index)}
            onPointerLeave={() => setAt(null)}
            onClick={() => onChoose(point)}
          />
        ))}
        {chosen !== -1 && points[chosen] && (
          <circle
            cx={x(time(points[chosen]))}
            cy={y(cost(points[chosen]))}
            r="10"
            fill="none"
            stroke="var(--ink)"
            strokeWidth="2"
            className="pointer-events-none"
          />
        )}
      </svg>
      <div className="mt-1 flex min-h-9 flex-wrap items-center justify-between gap-x-4 gap-y-1 text-sm">
        <p className="figures">
          <span className="font-medium">{named(shown)}</span>{" "}
          <span className="text-soft">
            {money(shown.estimated_cost)} · {duration(shown.estimated_duration_hours)}
            {shown.cost_p10 !== null && shown.cost_p90 !== null && ` · ${money(shown.cost_p10)} – ${money(shown.cost_p90)}`}
            {shown.verdict === "does_not_fit" && " · does not fit"}
          </span>
        </p>
        {at !== null && shownIndex !== chosen ? (
          <Button size="small" tabIndex={-1} onClick={() => onChoose(shown)}>
            Choose
          </Button>
        ) : (
          <span className="text-xs text-soft">
            <span aria-hidden className="text-brand">
              ●
            </span>{" "}
            nothing is both cheaper and faster
          </span>
        )}
      </div>
    </div>
  );
}

const time = (point: ComparisonPoint): number => Math.max(point.estimated_duration_hours, 0.01);
const cost = (point: ComparisonPoint): number => Math.max(point.estimated_cost, 0.01);

function scale(values: readonly number[], from: number, to: number): (value: number) => number {
  const low = Math.log(Math.min(...values) / 1.08);
  const high = Math.log(Math.max(...values) * 1.08);
  return (value) => from + ((Math.log(value) - low) / (high - low)) * (to - from);
}

/** Round values within a range: 1, 2 and 5 of each power of ten. */
function ticks(values: readonly number[]): number[] {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    for (const digit of [1, 2, 5]) {
      const value = Number((digit * 10 ** power).toPrecision(3));
      if (value >= low && value <= high) found.push(value);
    }
  }
  return found.slice(0, 8);
}
