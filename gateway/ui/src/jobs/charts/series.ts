import type { JobMetrics } from "@/api/types";
import { capitalise, count, scientific } from "@/lib/format";

/** One curve: a value for each step of its chart, null where it was not measured. Labels of a chart's curves are distinct. */
export type Series = {
  readonly name: string;
  readonly label: string;
  /** Number of its colour. Default: its place in the chart. */
  readonly colour?: number;
  readonly values: readonly (number | null)[];
};

/** Curves with one y axis, over the same steps. */
export type Chart = { readonly title: string; readonly steps: readonly number[]; readonly series: readonly Series[] };

/** Colours of the curves, as custom properties of the theme. */
const COLOURS = ["--brand", "--live", "--warn", "--bad", "--chart-5", "--chart-6", "--chart-7", "--chart-8"];

/** The custom property of a colour's number. */
export function colourOf(number: number): string {
  return COLOURS[number % COLOURS.length] ?? "--brand";
}

/** Charts that every trainer fills come first, in this order. */
const FIRST = ["loss", "learning_rate", "tokens_per_second"];
/** Evaluation metrics have the name of their training metric with this prefix, as Hugging Face's trainer reports them. */
const EVAL = "eval_";

/** Groups metrics into charts: a training metric and its evaluation share one. */
export function chartsOf(points: readonly JobMetrics[]): Chart[] {
  const names = [...new Set(points.flatMap(({ values }) => Object.keys(values)))];
  const groups = new Map<string, string[]>();
  for (const name of names) {
    const title = name.startsWith(EVAL) ? name.slice(EVAL.length) : name;
    groups.set(title, [...(groups.get(title) ?? []), name]);
  }
  return [...groups]
    .sort(([first], [second]) => rankOfMetric(first) - rankOfMetric(second) || first.localeCompare(second))
    .map(([title, members]) => {
      const measured = points.filter(({ values }) => members.some((name) => values[name] !== undefined));
      return {
        title: metricName(members.length === 1 ? (members[0] ?? title) : title),
        steps: measured.map(({ step }) => step),
        series: members.sort((first, second) => Number(first.startsWith(EVAL)) - Number(second.startsWith(EVAL))).map((name) => ({
          name,
          label: name.startsWith(EVAL) ? "eval" : "train",
          values: measured.map(({ values }) => values[name] ?? null),
        })),
      };
    });
}

/** Where the chart of a metric comes: those that every trainer fills first, an evaluation after its training metric. */
export function rankOfMetric(name: string): number {
  const index = FIRST.indexOf(name);
  if (index === -1 && name.startsWith(EVAL)) return rankOfMetric(name.slice(EVAL.length)) + 0.5;
  return index === -1 ? FIRST.length : index;
}

/** The label of a metric: `eval_loss` is "Eval loss". */
export function metricName(name: string): string {
  return name === "tokens_per_second" ? "Tokens per second" : capitalise(name.replaceAll("_", " "));
}

/** Formats a value of a metric. FLOPs and other huge numbers are in powers of ten: `1.0 × 10¹⁵`. */
export function formatMetric(name: string, value: number): string {
  if (name.endsWith("learning_rate")) return scientific(value);
  if (Math.abs(value) >= 1e9) return powerOfTen(value);
  if (Math.abs(value) >= 100) return count(value);
  return String(Number(value.toPrecision(4)));
}

function powerOfTen(value: number): string {
  const [digits = "", exponent = ""] = value.toExponential(1).split("e+");
  return `${digits} × 10${exponent.replace(/\d/g, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹".charAt(Number(digit)))}`;
}

/** Exponential moving average. `weight` of the past, 0 (none) to below 1; corrected for the start, so that it begins at the first value. */
export function smooth(values: readonly (number | null)[], weight: number): (number | null)[] {
  let average = 0;
  let total = 0;
  return values.map((value) => {
    if (value === null) return null;
    average = weight * average + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return average / total;
  });
}

/** Metrics as CSV, one line per step, with a column for each metric. */
export function metricsCsv(points: readonly JobMetrics[]): string {
  const names = [...new Set(points.flatMap(({ values }) => Object.keys(values)))].sort();
  const header = ["step", "epoch", ...names].map(quoted).join(",");
  const rows = points.map(({ step, epoch, values }) => [step, epoch, ...names.map((name) => values[name] ?? "")].join(","));
  return [header, ...rows, ""].join("\n");
}

function quoted(text: string): string {
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
