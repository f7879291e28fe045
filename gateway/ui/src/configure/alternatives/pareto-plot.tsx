import { useRef, useState, type KeyboardEvent, type MouseEvent } from "react";

import type { ComparisonPoint } from "@/api/types";
import { Button } from "@/components/ui/button";
import { useWidth } from "@/hooks/width";
import { cn } from "@/lib/cn";
import { pointName, pointNotes, type GoalResults } from "./comparison";
import { duration, money } from "@/lib/format";
import { durationTicks, logScale, moneyTicks, spacedTicks } from "./scale";

const HEIGHT = 320;
const PAD = { top: 14, right: 14, bottom: 50, left: 64 };
/** A point can be hit from this far away, in pixels: wide enough for a finger. */
const REACH = 24;

type Props = {
  points: readonly ComparisonPoint[];
  results: GoalResults;
  isCurrent: (point: ComparisonPoint) => boolean;
  onSelect: (point: ComparisonPoint) => void;
};

/** Cost against time on logarithmic axes, with the Pareto front. Points that do not fit are hollow, those that miss a goal pale. */
export function ParetoPlot({ points, results, isCurrent, onSelect }: Props) {
  const [at, setAt] = useState<number | null>(null);
  const svg = useRef<SVGSVGElement>(null);
  const width = useWidth(svg, 640);
  const order = points.map((point, index) => ({ point, index })).sort((first, second) => time(first.point) - time(second.point));
  const x = logScale(points.map(time), PAD.left, width - PAD.right);
  const y = logScale(points.map(cost), HEIGHT - PAD.bottom, PAD.top);
  const front = order.filter(({ point }) => point.is_pareto).map(({ point }) => point);
  const selected = points.findIndex(isCurrent);
  const shownIndex = at ?? (selected === -1 ? (order[0]?.index ?? 0) : selected);
  const shown = points[shownIndex];
  if (!shown) return null;

  const near = (event: MouseEvent<SVGSVGElement>): number | null => {
    const box = event.currentTarget.getBoundingClientRect();
    const away = (point: ComparisonPoint) =>
      Math.hypot(x(time(point)) - (event.clientX - box.left), y(cost(point)) - (event.clientY - box.top));
    const nearest = points.reduce((best, point, index) => {
      const other = points[best];
      return other && away(other) <= away(point) ? best : index;
    }, 0);
    return points[nearest] && away(points[nearest]) <= REACH ? nearest : null;
  };
  const step = (event: KeyboardEvent) => {
    const position = order.findIndex(({ index }) => index === shownIndex);
    const to = { ArrowLeft: position - 1, ArrowRight: position + 1, Home: 0, End: order.length - 1 }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      setAt(order[Math.min(order.length - 1, Math.max(0, to))]?.index ?? null);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      onSelect(shown);
    }
  };

  return (
    <div>
      <svg
        ref={svg}
        height={HEIGHT}
        role="slider"
        tabIndex={0}
        aria-label="Cost against time of all alternatives. Arrow keys move by time, Enter selects"
        aria-valuemin={1}
        aria-valuemax={order.length}
        aria-valuenow={order.findIndex(({ index }) => index === shownIndex) + 1}
        aria-valuetext={[
          `${pointName(shown)}: ${money(shown.estimated_cost)}`,
          duration(shown.estimated_duration_hours),
          ...pointNotes(shown, shownIndex, results),
        ].join(", ")}
        className={cn("w-full touch-pan-y rounded-lg", at !== null && "cursor-pointer")}
        onKeyDown={step}
        onPointerMove={(event) => {
          if (event.pointerType === "mouse") setAt(near(event));
        }}
        onPointerLeave={(event) => {
          if (event.pointerType === "mouse") setAt(null);
        }}
        onClick={(event) => {
          const nearest = near(event);
          const point = nearest === null ? undefined : points[nearest];
          // A finger covers the point: a tap shows it, and the button below selects it.
          if (point && (event.nativeEvent as PointerEvent).pointerType === "mouse") onSelect(point);
          else setAt(nearest);
        }}
      >
        {spacedTicks(moneyTicks(points.map(cost)), y, 26).map((value) => (
          <g key={value}>
            <line x1={PAD.left} x2={width - PAD.right} y1={y(value)} y2={y(value)} stroke="var(--line)" />
            <text x={PAD.left - 8} y={y(value) + 4} textAnchor="end" className="figures fill-soft text-[11px]">
              {`$${value}`}
            </text>
          </g>
        ))}
        {spacedTicks(durationTicks(points.map(time)), x, 76).map((value) => (
          <text key={value} x={x(value)} y={HEIGHT - 30} textAnchor="middle" className="figures fill-soft text-[11px]">
            {duration(value)}
          </text>
        ))}
        <text x={(PAD.left + width - PAD.right) / 2} y={HEIGHT - 8} textAnchor="middle" className="fill-soft text-[11px]">
          Time, P50 (logarithmic)
        </text>
        <text
          transform={`translate(14 ${(PAD.top + HEIGHT - PAD.bottom) / 2}) rotate(-90)`}
          textAnchor="middle"
          className="fill-soft text-[11px]"
        >
          Cost (logarithmic)
        </text>
        <path
          d={front.map((point, index) => `${index === 0 ? "M" : "L"}${x(time(point)).toFixed(1)} ${y(cost(point)).toFixed(1)}`).join("")}
          fill="none"
          stroke="var(--brand)"
          strokeWidth="1.5"
          strokeDasharray="5 4"
        />
        {points.map((point, index) => (
          <circle
            key={pointName(point)}
            data-testid={`point-${pointName(point)}`}
            cx={x(time(point))}
            cy={y(cost(point))}
            r={point.is_pareto ? 5.5 : 4}
            className={cn("transition-opacity", index === shownIndex && "stroke-ink")}
            opacity={results.misses(point) ? 0.25 : 1}
            fill={point.verdict === "does_not_fit" ? "var(--card)" : point.is_pareto ? "var(--brand)" : "var(--line-strong)"}
            stroke={point.verdict === "does_not_fit" ? "var(--bad)" : "var(--card)"}
            strokeWidth="1.5"
          />
        ))}
        {[results.cheapest, results.fastest].map((index, goal) => {
          const point = index === null ? undefined : points[index];
          return (
            point && (
              <rect
                key={goal === 0 ? "cheapest" : "fastest"}
                x={x(time(point)) - 9}
                y={y(cost(point)) - 9}
                width="18"
                height="18"
                transform={goal === 0 ? undefined : `rotate(45 ${x(time(point))} ${y(cost(point))})`}
                fill="none"
                stroke="var(--warn)"
                strokeWidth="2"
              />
            )
          );
        })}
        {selected !== -1 && points[selected] && (
          <circle cx={x(time(points[selected]))} cy={y(cost(points[selected]))} r="10" fill="none" stroke="var(--ink)" strokeWidth="2" />
        )}
      </svg>
      <div className="mt-1 flex min-h-12 flex-wrap items-center justify-between gap-x-4 gap-y-1 text-sm sm:min-h-9">
        <p className="figures">
          <span className="font-medium">{pointName(shown)}</span>{" "}
          <span className="text-soft">
            {money(shown.estimated_cost)} · {duration(shown.estimated_duration_hours)}
            {shown.cost_p10 !== null && shown.cost_p90 !== null && ` · ${money(shown.cost_p10)} – ${money(shown.cost_p90)}`}
            {pointNotes(shown, shownIndex, results).map((note) => ` · ${note}`)}
          </span>
        </p>
        {at !== null && shownIndex !== selected && (
          <Button size="small" tabIndex={-1} onClick={() => onSelect(shown)}>
            Select
          </Button>
        )}
      </div>
      <Legend hasMisfits={points.some(({ verdict }) => verdict === "does_not_fit")} results={results} />
    </div>
  );
}

function Legend({ hasMisfits, results }: { hasMisfits: boolean; results: GoalResults }) {
  return (
    <ul aria-hidden className="mt-2 flex flex-wrap gap-x-4 gap-y-1 text-xs text-soft">
      <Key text="Pareto-optimal: none is cheaper and faster" mark="rounded-full bg-brand" />
      <Key text="other" mark="rounded-full bg-line-strong" />
      {hasMisfits && <Key text="does not fit into memory" mark="rounded-full border-[1.5px] border-bad" />}
      <Key text="selected" mark="rounded-full border-2 border-ink" />
      {results.cheapest !== null && <Key text="cheapest by the deadline" mark="border-2 border-warn" />}
      {results.fastest !== null && <Key text="fastest within the budget" mark="rotate-45 border-2 border-warn" />}
    </ul>
  );
}

function Key({ mark, text }: { mark: string; text: string }) {
  return (
    <li className="flex items-center gap-1.5">
      <span className={cn("size-2.5", mark)} />
      {text}
    </li>
  );
}

const time = (point: ComparisonPoint): number => Math.max(point.estimated_duration_hours, 0.01);
const cost = (point: ComparisonPoint): number => Math.max(point.estimated_cost, 0.01);
