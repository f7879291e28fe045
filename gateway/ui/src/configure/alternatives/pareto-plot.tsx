import { useRef, useState, type KeyboardEvent, type MouseEvent } from "react";

import type { ComparisonPoint } from "@/api/types";
import { Button } from "@/components/ui/button";
import { useWidth } from "@/hooks/width";
import { cn } from "@/lib/cn";
import { named, remarks, type Answers } from "./comparison";
import { duration, money } from "@/lib/format";

const HEIGHT = 300;
const PAD = { top: 14, right: 14, bottom: 34, left: 50 };
/** A point is meant from this far away: wide enough for a finger. */
const REACH = 24;

type Props = {
  points: readonly ComparisonPoint[];
  answers: Answers;
  isCurrent: (point: ComparisonPoint) => boolean;
  onChoose: (point: ComparisonPoint) => void;
};

/** Cost against time, both on logarithmic scales: the front is drawn, what does not fit is hollow, what misses a goal is pale. */
export function ParetoPlot({ points, answers, isCurrent, onChoose }: Props) {
  const [at, setAt] = useState<number | null>(null);
  const svg = useRef<SVGSVGElement>(null);
  const width = useWidth(svg, 640);
  const order = points.map((point, index) => ({ point, index })).sort((one, other) => time(one.point) - time(other.point));
  const x = scale(points.map(time), PAD.left, width - PAD.right);
  const y = scale(points.map(cost), HEIGHT - PAD.bottom, PAD.top);
  const front = order.filter(({ point }) => point.is_pareto).map(({ point }) => point);
  const chosen = points.findIndex(isCurrent);
  const shownIndex = at ?? (chosen === -1 ? (order[0]?.index ?? 0) : chosen);
  const shown = points[shownIndex];
  if (!shown) return null;

  const near = (event: MouseEvent<SVGSVGElement>): number | null => {
    const box = event.currentTarget.getBoundingClientRect();
    const away = (point: ComparisonPoint) =>
      Math.hypot(x(time(point)) - (event.clientX - box.left), y(cost(point)) - (event.clientY - box.top));
    const found = points.reduce((best, point, index) => {
      const other = points[best];
      return other && away(other) <= away(point) ? best : index;
    }, 0);
    return points[found] && away(points[found]) <= REACH ? found : null;
  };
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
        ref={svg}
        height={HEIGHT}
        role="slider"
        tabIndex={0}
        aria-label="Cost against time of all alternatives. Arrow keys go through them by time, Enter chooses one"
        aria-valuemin={1}
        aria-valuemax={order.length}
        aria-valuenow={order.findIndex(({ index }) => index === shownIndex) + 1}
        aria-valuetext={[
          `${named(shown)}: ${money(shown.estimated_cost)}`,
          duration(shown.estimated_duration_hours),
          ...remarks(shown, shownIndex, answers),
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
          const found = near(event);
          const point = found === null ? undefined : points[found];
          // A finger hides what it is on: it reads first, and the button below chooses.
          if (point && (event.nativeEvent as PointerEvent).pointerType === "mouse") onChoose(point);
          else setAt(found);
        }}
      >
        {ticks(points.map(cost)).map((value) => (
          <g key={value}>
            <line x1={PAD.left} x2={width - PAD.right} y1={y(value)} y2={y(value)} stroke="var(--line)" />
            <text x={PAD.left - 8} y={y(value) + 4} textAnchor="end" className="figures fill-soft text-[11px]">
              ${value}
            </text>
          </g>
        ))}
        {spaced(ticks(points.map(time)), x).map((value) => (
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
            className={cn("transition-opacity", index === shownIndex && "stroke-ink")}
            opacity={answers.misses(point) ? 0.25 : 1}
            fill={point.verdict === "does_not_fit" ? "var(--card)" : point.is_pareto ? "var(--brand)" : "var(--line-strong)"}
            stroke={point.verdict === "does_not_fit" ? "var(--bad)" : "var(--card)"}
            strokeWidth="1.5"
          />
        ))}
        {[answers.cheapest, answers.fastest].map((index, which) => {
          const point = index === null ? undefined : points[index];
          return (
            point && (
              <rect
                key={which === 0 ? "cheapest" : "fastest"}
                x={x(time(point)) - 9}
                y={y(cost(point)) - 9}
                width="18"
                height="18"
                transform={which === 0 ? undefined : `rotate(45 ${x(time(point))} ${y(cost(point))})`}
                fill="none"
                stroke="var(--warn)"
                strokeWidth="2"
              />
            )
          );
        })}
        {chosen !== -1 && points[chosen] && (
          <circle cx={x(time(points[chosen]))} cy={y(cost(points[chosen]))} r="10" fill="none" stroke="var(--ink)" strokeWidth="2" />
        )}
      </svg>
      <div className="mt-1 flex min-h-12 flex-wrap items-center justify-between gap-x-4 gap-y-1 text-sm sm:min-h-9">
        <p className="figures">
          <span className="font-medium">{named(shown)}</span>{" "}
          <span className="text-soft">
            {money(shown.estimated_cost)} · {duration(shown.estimated_duration_hours)}
            {shown.cost_p10 !== null && shown.cost_p90 !== null && ` · ${money(shown.cost_p10)} – ${money(shown.cost_p90)}`}
            {remarks(shown, shownIndex, answers).map((remark) => ` · ${remark}`)}
          </span>
        </p>
        {at !== null && shownIndex !== chosen && (
          <Button size="small" tabIndex={-1} onClick={() => onChoose(shown)}>
            Choose
          </Button>
        )}
      </div>
      <Legend hasMisfits={points.some(({ verdict }) => verdict === "does_not_fit")} answers={answers} />
    </div>
  );
}

function Legend({ hasMisfits, answers }: { hasMisfits: boolean; answers: Answers }) {
  return (
    <ul aria-hidden className="mt-2 flex flex-wrap gap-x-4 gap-y-1 text-xs text-soft">
      <Key text="nothing is both cheaper and faster" mark="rounded-full bg-brand" />
      <Key text="something is" mark="rounded-full bg-line-strong" />
      {hasMisfits && <Key text="does not fit into memory" mark="rounded-full border-[1.5px] border-bad" />}
      <Key text="chosen" mark="rounded-full border-2 border-ink" />
      {answers.cheapest !== null && <Key text="cheapest in time" mark="border-2 border-warn" />}
      {answers.fastest !== null && <Key text="fastest in budget" mark="rotate-45 border-2 border-warn" />}
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

/** Ticks whose words have room beside each other. */
function spaced(values: readonly number[], x: (value: number) => number): number[] {
  const found: number[] = [];
  for (const value of values) {
    const last = found.at(-1);
    if (last === undefined || x(value) - x(last) >= 76) found.push(value);
  }
  return found;
}
