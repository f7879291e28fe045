import type { Catalogue, Comparison, ComparisonPoint, ComparisonRequest, EstimateRequest } from "@/api/types";
import { gpuTypes, type Configuration } from "@/configure/model/configuration";
import { capitalise, duration, money } from "@/lib/format";

const COUNTS = [1, 2, 4, 8];

/** A deadline in hours and a budget in dollars. Null: none. NaN: text that is not a number. */
export type Goals = { readonly deadline: number | null; readonly budget: number | null };

/** Indices of the points that meet the goals best; null where there is no goal or no point meets it. */
export type GoalResults = {
  readonly cheapest: number | null;
  readonly fastest: number | null;
  readonly misses: (point: ComparisonPoint) => boolean;
};

/** The request that compares a configuration over all GPU types, counts and presets. */
export function comparisonRequest(
  catalogue: Catalogue,
  configuration: Configuration,
  request: EstimateRequest,
  goals: Goals,
): ComparisonRequest {
  const isCustom = configuration.presetId === "custom";
  const count = request.gpu_config.count;
  return {
    dataset_id: request.dataset_id,
    gpu_types: gpuTypes(catalogue, configuration).map(({ type }) => type),
    gpu_counts: COUNTS.includes(count) ? COUNTS : [...COUNTS, count].sort((first, second) => first - second),
    preset_ids: [...catalogue.presets.map(({ id }) => id), ...(isCustom ? (["custom"] as const) : [])],
    ...(isCustom ? { hyperparameters: request.hyperparameters } : {}),
    ...(request.base_model ? { base_model: request.base_model } : {}),
    ...(request.training ? { training: request.training } : {}),
    ...(isGoal(goals.deadline) ? { deadline_hours: goals.deadline } : {}),
    ...(isGoal(goals.budget) ? { budget_usd: goals.budget } : {}),
  };
}

/** The request that compares a configuration with the same settings on other GPU types, one GPU and as many as now. */
export function sameSettingsRequest(catalogue: Catalogue, configuration: Configuration, request: EstimateRequest): ComparisonRequest {
  return {
    ...comparisonRequest(catalogue, configuration, request, { deadline: null, budget: null }),
    gpu_counts: [...new Set([1, request.gpu_config.count])].sort((first, second) => first - second),
    preset_ids: ["custom"],
    hyperparameters: request.hyperparameters,
  };
}

/** Whether a number is a usable goal. */
export function isGoal(value: number | null): value is number {
  return value !== null && value > 0;
}

export function goalResults(comparison: Comparison, { deadline, budget }: Goals): GoalResults {
  return {
    cheapest: isGoal(deadline) ? comparison.cheapest_under_deadline : null,
    fastest: isGoal(budget) ? comparison.fastest_under_budget : null,
    misses: (point) => (isGoal(deadline) && hours(point) > deadline) || (isGoal(budget) && dollars(point) > budget),
  };
}

// The service counts a goal as met if P90 meets it.
const hours = (point: ComparisonPoint): number => point.hours_p90 ?? point.estimated_duration_hours;
const dollars = (point: ComparisonPoint): number => point.cost_p90 ?? point.estimated_cost;

/** Describes the point closest to a goal that no point meets. Null if no point fits into memory. */
export function closestPoint(points: readonly ComparisonPoint[], goal: keyof Goals): string | null {
  const fitting = points.filter(({ verdict }) => verdict !== "does_not_fit");
  if (fitting.length === 0) return null;
  return goal === "deadline"
    ? `The fastest takes ${duration(Math.min(...fitting.map(hours)))}`
    : `The cheapest costs ${money(Math.min(...fitting.map(dollars)))}`;
}

/** The name of a point: `2 × A100-80GB, Balanced`. */
export function pointName(point: ComparisonPoint): string {
  return `${point.gpu_config.count} × ${point.gpu_config.type}, ${capitalise(point.preset_id)}`;
}

/** Properties of a point that are worth a note. */
export function pointNotes(point: ComparisonPoint, index: number, results: GoalResults): string[] {
  return [
    point.verdict === "does_not_fit" && "does not fit",
    !point.is_quote && "not a quote",
    point.is_pareto && "Pareto-optimal",
    index === results.cheapest && "cheapest by the deadline",
    index === results.fastest && "fastest within the budget",
  ].filter((note) => note !== false);
}
