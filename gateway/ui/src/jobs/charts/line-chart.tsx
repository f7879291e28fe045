
import { Maximize2 } from "lucide-react";
import { useEffect, useRef, useState, type KeyboardEvent } from "react";
import uPlot from "uplot";

import { useTheme } from "@/app/theme";
import { Button } from "@/components/ui/button";
import { useWidth } from "@/hooks/width";
import { count } from "@/lib/format";
import { colourOf, formatMetric, smooth, type Chart } from "./series";

/** More curves than these, or longer names of them, have their values below the chart: in its caption they would wrap. */
const MAX_READINGS_IN_CAPTION = 2;
const MAX_NAMES_IN_CAPTION = 12;

// uPlot's `Distr.Logarithmic`: a const enum of another module cannot be imported.
// eslint-disable-next-line @typescript-eslint/no-unsafe-enum-assignment
const LOGARITHMIC = 3 as uPlot.Scale.Distr;

type Props = {
  chart: Chart;
  height: number;
  /** Weight of the past in the smoothed curves, 0 to below 1. */
  smoothing: number;
  isLogarithmic: boolean;
  /** Charts with the same key share their crosshair. */
  syncKey: string;
  onEnlarge?: () => void;
};

/** A line chart. A drag zooms, a double click resets; the pointer or the arrow keys read the values of a step. */
export function LineChart({ chart, height, smoothing, isLogarithmic, syncKey, onEnlarge }: Props) {
  const [step, setStep] = useState<number | null>(null);
  const container = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const width = useWidth(container, 320);
  const { isDark } = useTheme();
  // What the plot is made of: it is made anew when this changes.
  const curves = JSON.stringify(chart.series.map(({ name, label, colour }, number) => [name, label, colourOf(colour ?? number)]));
  // A logarithmic axis has no room for zero and below.
  const data = [
    chart.steps,
    ...chart.series.map(({ values }) =>
      smooth(values, smoothing).map((value) => (isLogarithmic && value !== null && value <= 0 ? null : value)),
    ),
  ] as uPlot.AlignedData;
  const latest = useRef(data);
  useEffect(() => {
    latest.current = data;
  });

  useEffect(() => {
    if (!container.current) return;
    const style = getComputedStyle(document.documentElement);
    const colour = (name: string) => style.getPropertyValue(name);
    const axis: uPlot.Axis = {
      stroke: colour("--ink-soft"),
      font: "11px 'Geist Variable', sans-serif",
      grid: { stroke: colour("--line"), width: 1 },
      ticks: { show: false },
    };
    const parts = JSON.parse(curves) as [name: string, label: string, colour: string][];
    const first = parts[0]?.[0] ?? "";
    const made = new uPlot(
      {
        width: 320,
        height: 200,
        legend: { show: false },
        scales: { x: { time: false }, y: isLogarithmic ? { distr: LOGARITHMIC, log: 10 } : {} },
        axes: [
          { ...axis, size: 32, space: 60, values: (_, splits) => splits.map((split) => (Number.isInteger(split) ? count(split) : "")) },
          { ...axis, size: 64, space: 28, values: (_, splits) => splits.map((split) => formatSplit(first, split)) },
        ],
        series: [
          {},
          ...parts.map(([, label, name]) => ({
            label,
            stroke: colour(name),
            width: 2,
            spanGaps: true,
          })),
        ],
        cursor: { sync: { key: syncKey }, drag: { x: true, y: false }, focus: { prox: 16 } },
        hooks: {
          setCursor: [
            ({ cursor, data: [steps] }) => {
              const index = cursor.idx;
              setStep(index == null ? null : (steps[index] ?? null));
            },
          ],
        },
      },
      latest.current,
      container.current,
    );
    plot.current = made;
    return () => {
      plot.current = null;
      made.destroy();
    };
  }, [curves, isLogarithmic, syncKey, isDark]);

  useEffect(() => {
    plot.current?.setSize({ width, height });
  }, [width, height, curves, isLogarithmic, syncKey, isDark]);
  const zoomed = useRef(false);
  useEffect(() => {
    // New points do not undo a zoom.
    const current = plot.current;
    if (!current) return;
    const { min, max } = current.scales.x ?? {};
    const steps = current.data[0];
    zoomed.current = min != null && max != null && steps.length > 1 && (min > (steps[0] ?? min) || max < (steps.at(-1) ?? max));
    current.setData(latest.current, !zoomed.current);
    if (zoomed.current) current.redraw();
  }, [chart, smoothing, isLogarithmic]);

  const position = step === null ? -1 : nearest(chart.steps, step);
  const index = position === -1 ? chart.steps.length - 1 : position;
  const text = readingOf(chart, index);
  const names = chart.series.length > 1 ? chart.series.map(({ label }) => label).join("") : "";
  const isShort = chart.series.length <= MAX_READINGS_IN_CAPTION && names.length <= MAX_NAMES_IN_CAPTION;
  const onKeyDown = (event: KeyboardEvent) => {
    const target = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: chart.steps.length - 1 }[event.key];
    const current = plot.current;
    if (target === undefined || !current) return;
    event.preventDefault();
    const to = Math.min(chart.steps.length - 1, Math.max(0, target));
    const x = chart.steps[to] ?? 0;
    setStep(x);
    const left = current.valToPos(x, "x");
    const value = chart.series.map(({ values }) => values[to]).find((each) => each != null);
    current.setCursor({ left, top: value == null ? 0 : Math.max(0, current.valToPos(value, "y")) });
    setStep(x);
  };
  return (
    <figure className="min-w-0">
      <figcaption className="mb-1 flex min-h-8 flex-wrap items-center justify-between gap-x-3 text-sm">
        <span className="text-soft wrap-anywhere">{chart.title}</span>
        <span className="flex items-center gap-2">
          {isShort && (
            <span className="figures flex flex-wrap justify-end gap-x-3 font-medium">
              <Readings chart={chart} index={index} />
            </span>
          )}
          {onEnlarge && (
            <Button variant="ghost" size="icon" className="-mr-2 size-8" aria-label={`Enlarge ${chart.title}`} onClick={onEnlarge}>
              <Maximize2 aria-hidden />
            </Button>
          )}
        </span>
      </figcaption>
      <div
        ref={container}
        role="slider"
        tabIndex={0}
        aria-label={`${chart.title}, by step`}
        aria-valuemin={chart.steps[0] ?? 0}
        aria-valuemax={chart.steps.at(-1) ?? 0}
        aria-valuenow={chart.steps[index] ?? 0}
        aria-valuetext={`${text} at step ${count(chart.steps[index] ?? 0)}`}
        className="touch-pan-y rounded-lg"
        style={{ height }}
        onKeyDown={onKeyDown}
      />
      {!isShort && (
        <div className="figures mt-1 grid grid-cols-2 gap-x-4 gap-y-0.5 text-xs font-medium">
          <Readings chart={chart} index={index} />
        </div>
      )}
    </figure>
  );
}

/** The value of each curve at a step, or its last one before. */
function Readings({ chart, index }: { chart: Chart; index: number }) {
  return chart.series.map(({ name, label, colour, values }, number) => {
    const value = values[lastMeasured(values, index)];
    return (
      <span key={label} className="flex min-w-0 items-center gap-1.5">
        {chart.series.length > 1 && (
          <>
            <span aria-hidden className="h-0.5 w-3 shrink-0 rounded" style={{ background: `var(${colourOf(colour ?? number)})` }} />
            <span className="truncate font-normal text-soft">{label}</span>
          </>
        )}
        <span className="whitespace-nowrap">{value == null ? "–" : formatMetric(name, value)}</span>
      </span>
    );
  });
}

/** A tick of the y axis. On a logarithmic axis uPlot leaves out ticks by null, which its types do not say. */
function formatSplit(name: string, split: number | null): string {
  return split === null ? "" : formatMetric(name, split);
}

/** The values of a step, in words. */
function readingOf(chart: Chart, index: number): string {
  const readings = chart.series.flatMap(({ name, label, values }) => {
    const value = values[index];
    if (value == null) return [];
    return [chart.series.length > 1 ? `${label} ${formatMetric(name, value)}` : formatMetric(name, value)];
  });
  return readings.join(", ") || "no value";
}

/** The index of the last value at or before `index`; -1: none. */
function lastMeasured(values: readonly (number | null)[], index: number): number {
  for (let at = index; at >= 0; at -= 1) if (values[at] != null) return at;
  return -1;
}

/** The index of the step that is nearest to `step`. */
function nearest(steps: readonly number[], step: number): number {
  return steps.reduce((best, each, index) => (Math.abs(each - step) < Math.abs((steps[best] ?? Infinity) - step) ? index : best), 0);
}
