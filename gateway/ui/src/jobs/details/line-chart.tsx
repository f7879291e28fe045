import { useId, useRef, useState, type KeyboardEvent, type PointerEvent } from "react";

import { useWidth } from "@/hooks/width";

type Point = { x: number; y: number };

type Props = {
  title: string;
  points: readonly Point[];
  xName: string;
  format: (value: number) => string;
  formatX: (value: number) => string;
};

const HEIGHT = 112;
const PAD = { top: 10, right: 8, bottom: 20, left: 8 };

/** One curve. A pointer or the arrow keys read single points off it. */
export function LineChart({ title, points, xName, format, formatX }: Props) {
  const [at, setAt] = useState<number | null>(null);
  const id = useId();
  const svg = useRef<SVGSVGElement>(null);
  const width = useWidth(svg, 240);
  const last = points.at(-1);
  if (!last) return null;
  const xs = points.map(({ x }) => x);
  const ys = points.map(({ y }) => y);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const [low, high] = [Math.min(...ys), Math.max(...ys)];
  const px = (x: number) => PAD.left + ((x - left) / (right - left || 1)) * (width - PAD.left - PAD.right);
  // What never changed runs through the middle.
  const share = (y: number) => (high === low ? 0.5 : (y - low) / (high - low));
  const py = (y: number) => PAD.top + (1 - share(y)) * (HEIGHT - PAD.top - PAD.bottom);
  const line = points.map(({ x, y }, index) => `${index === 0 ? "M" : "L"}${px(x).toFixed(1)} ${py(y).toFixed(1)}`).join("");
  const base = HEIGHT - PAD.bottom;
  const index = at === null ? points.length - 1 : Math.min(at, points.length - 1);
  const read = points[index] ?? last;

  const follow = (event: PointerEvent<SVGSVGElement>) => {
    const box = event.currentTarget.getBoundingClientRect();
    const x = event.clientX - box.left;
    let nearest = 0;
    points.forEach((point, candidate) => {
      if (Math.abs(px(point.x) - x) < Math.abs(px(points[nearest]?.x ?? 0) - x)) nearest = candidate;
    });
    setAt(nearest);
  };
  const step = (event: KeyboardEvent) => {
    const to = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: points.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    setAt(Math.min(points.length - 1, Math.max(0, to)));
  };

  return (
    <figure className="min-w-0">
      <figcaption className="mb-1 flex items-baseline justify-between gap-3 text-sm">
        <span className="text-soft">{title}</span>
        <span className="figures font-medium">{format(read.y)}</span>
      </figcaption>
      <svg
        ref={svg}
        height={HEIGHT}
        role="slider"
        tabIndex={0}
        aria-label={`${title}, by ${xName}`}
        aria-valuemin={left}
        aria-valuemax={right}
        aria-valuenow={read.x}
        aria-valuetext={`${format(read.y)} at ${xName} ${formatX(read.x)}`}
        className="w-full touch-pan-y rounded-lg bg-sunken/60"
        onPointerMove={follow}
        onPointerLeave={() => setAt(null)}
        onKeyDown={step}
      >
        <defs>
          <linearGradient id={id} x1="0" x2="0" y1="0" y2="1">
            <stop offset="0" stopColor="var(--brand)" stopOpacity="0.18" />
            <stop offset="1" stopColor="var(--brand)" stopOpacity="0" />
          </linearGradient>
        </defs>
        {points.length > 1 && <path d={`${line}L${px(right)} ${base}L${px(left)} ${base}Z`} fill={`url(#${id})`} />}
        <path d={line} fill="none" stroke="var(--brand)" strokeWidth="2" strokeLinejoin="round" strokeLinecap="round" />
        {at !== null && (
          <line x1={px(read.x)} x2={px(read.x)} y1={PAD.top} y2={base} stroke="var(--line-strong)" strokeDasharray="3 3" />
        )}
        <circle cx={px(read.x)} cy={py(read.y)} r="4" fill="var(--card)" stroke="var(--brand)" strokeWidth="2" />
        <text x={PAD.left} y={HEIGHT - 6} className="fill-soft text-[11px]">
          {formatX(left)}
        </text>
        <text x={width - PAD.right} y={HEIGHT - 6} textAnchor="end" className="fill-soft text-[11px]">
          {formatX(at === null ? right : read.x)}
        </text>
      </svg>
    </figure>
  );
}
