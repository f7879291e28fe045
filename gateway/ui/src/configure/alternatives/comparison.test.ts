import { describe, expect, it } from "vitest";

import type { Comparison, ComparisonPoint } from "@/api/types";
import { closestPoint, goalResults, pointNotes } from "./comparison";

function point(cost: number, hours: number, more: Partial<ComparisonPoint> = {}): ComparisonPoint {
  return {
    gpu_config: { type: "A", count: 1 },
    preset_id: "fast",
    estimated_cost: cost,
    estimated_duration_hours: hours,
    hourly_rate: 1,
    cost_p10: null,
    cost_p90: null,
    hours_p10: null,
    hours_p90: null,
    verdict: null,
    memory_gib: null,
    is_quote: true,
    is_pareto: false,
    ...more,
  };
}

function comparison(points: ComparisonPoint[], more: Partial<Comparison> = {}): Comparison {
  const none = { cheapest: null, fastest: null, cheapest_under_deadline: null, fastest_under_budget: null };
  return { points, dataset_name: "d", catalogue_version: "1", assumptions: [], ...none, ...more };
}

describe("goals", () => {
  const points = [point(1, 4), point(3, 1), point(2, 2, { hours_p90: 3, cost_p90: 2.5 })];

  it("have the results of the service, and none without a goal", () => {
    const result = comparison(points, { cheapest_under_deadline: 0, fastest_under_budget: 1 });
    expect(goalResults(result, { deadline: 5, budget: null })).toMatchObject({ cheapest: 0, fastest: null });
    expect(goalResults(result, { deadline: Number.NaN, budget: 3 })).toMatchObject({ cheapest: null, fastest: 1 });
  });

  it("are missed by points whose P90 misses them", () => {
    const { misses } = goalResults(comparison(points), { deadline: 2.5, budget: 2.6 });
    expect(points.map(misses)).toEqual([true, true, true]);
    expect(points.map(goalResults(comparison(points), { deadline: 3, budget: 2.5 }).misses)).toEqual([true, true, false]);
    expect(points.some(goalResults(comparison(points), { deadline: null, budget: -1 }).misses)).toBe(false);
  });

  it("that no point meets have a closest point, which fits into memory", () => {
    expect(closestPoint(points, "deadline")).toBe("The fastest takes 1 h");
    expect(closestPoint([...points, point(0.5, 0.5, { verdict: "does_not_fit" })], "budget")).toBe("The cheapest costs $1.00");
    expect(closestPoint([point(1, 1, { verdict: "does_not_fit" })], "budget")).toBeNull();
  });
});

it("notes the properties of a point", () => {
  const results = goalResults(comparison([], { cheapest_under_deadline: 7, fastest_under_budget: 7 }), { deadline: 1, budget: 1 });
  expect(pointNotes(point(1, 1), 0, results)).toEqual([]);
  expect(pointNotes(point(1, 1, { verdict: "does_not_fit", is_quote: false }), 0, results)).toEqual(["does not fit", "not a quote"]);
  expect(pointNotes(point(1, 1, { is_pareto: true }), 7, results)).toEqual(["Pareto-optimal", "cheapest by the deadline", "fastest within the budget"]);
});
