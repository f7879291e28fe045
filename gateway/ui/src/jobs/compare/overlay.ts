import type { JobMetrics } from "@/api/types";
import { metricName, rankOfMetric, type Chart } from "@/jobs/charts/series";

/** A job whose curves are drawn. */
export type Run = { readonly name: string; readonly colour: number; readonly points: readonly JobMetrics[] };

/** A chart for each metric that a job reported, with a curve for each job that did, over the steps of all of them. */
export function overlay(runs: readonly Run[]): Chart[] {
  const metrics = [...new Set(runs.flatMap(({ points }) => points.flatMap(({ values }) => Object.keys(values))))];
  return metrics
    .sort((first, second) => rankOfMetric(first) - rankOfMetric(second) || first.localeCompare(second))
    .map((metric) => {
      const curves = runs.flatMap(({ name, colour, points }) => {
        const values = new Map(points.flatMap(({ step, values }) => (values[metric] === undefined ? [] : [[step, values[metric]]])));
        return values.size === 0 ? [] : [{ name, colour, values }];
      });
      const steps = [...new Set(curves.flatMap(({ values }) => [...values.keys()]))].sort((first, second) => first - second);
      return {
        title: metricName(metric),
        steps,
        series: curves.map(({ name, colour, values }) => ({
          name: metric,
          label: name,
          colour,
          values: steps.map((step) => values.get(step) ?? null),
        })),
      };
    });
}
