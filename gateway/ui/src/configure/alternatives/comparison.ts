import type { Catalogue, Comparison, ComparisonPoint, ComparisonRequest, EstimateRequest } from "@/api/types";
import { gpuTypes, type Configuration } from "@/configure/model/configuration";
import { capitalise, duration, money } from "@/lib/format";

const COUNTS = [1, 2, 4, 8];

/** What a person wants of a comparison: hours that it may take, dollars that it may cost. Null: whatever. */
export type Goals = { readonly deadline: number | null; readonly budget: number | null };

/** The points that meet the goals best, by their place in the comparison; null where none does, or none was asked for. */
export type Answers = {
  readonly cheapest: number | null;
  readonly fastest: number | null;
  readonly misses: (point: ComparisonPoint) => boolean;
};

/** The configuration over all GPU types, counts and presets. */
export function comparisonOf(
  catalogue: Catalogue,
  configuration: Configuration,
  asked: EstimateRequest,
  goals: Goals,
): ComparisonRequest {
  const custom = configuration.presetId === "custom";
  const count = asked.gpu_config.count;
  return {
    dataset_id: asked.dataset_id,
    gpu_types: gpuTypes(catalogue, configuration).map(({ type }) => type),
    gpu_counts: COUNTS.includes(count) ? COUNTS : [...COUNTS, count].sort((one, other) => one - other),
    preset_ids: [...catalogue.presets.map(({ id }) => id), ...(custom ? (["custom"] as const) : [])],
    ...(custom ? { hyperparameters: asked.hyperparameters } : {}),
    ...(asked.base_model ? { base_model: asked.base_model } : {}),
    ...(asked.training ? { training: asked.training } : {}),
    ...(isGoal(goals.deadline) ? { deadline_hours: goals.deadline } : {}),
    ...(isGoal(goals.budget) ? { budget_usd: goals.budget } : {}),
  };
}

export function isGoal(value: number | null): value is number {
  return value !== null && value > 0;
}

export function answersOf(found: Comparison, { deadline, budget }: Goals): Answers {
  return {
    cheapest: isGoal(deadline) ? found.cheapest_under_deadline : null,
    fastest: isGoal(budget) ? found.fastest_under_budget : null,
    misses: (point) => (isGoal(deadline) && hours(point) > deadline) || (isGoal(budget) && dollars(point) > budget),
  };
}

// A goal is met where nine of ten runs would meet it, as the service counts.
const hours = (point: ComparisonPoint): number => point.hours_p90 ?? point.estimated_duration_hours;
const dollars = (point: ComparisonPoint): number => point.cost_p90 ?? point.estimated_cost;

/** What comes closest to a goal that nothing meets, in words; null where nothing fits at all. */
export function closest(points: readonly ComparisonPoint[], goal: keyof Goals): string | null {
  const fitting = points.filter(({ verdict }) => verdict !== "does_not_fit");
  if (fitting.length === 0) return null;
  return goal === "deadline"
    ? `The fastest takes ${duration(Math.min(...fitting.map(hours)))}`
    : `The cheapest costs ${money(Math.min(...fitting.map(dollars)))}`;
}

export function named(point: ComparisonPoint): string {
  return `${point.gpu_config.count} × ${point.gpu_config.type}, ${capitalise(point.preset_id)}`;
}

/** What is special about a point. */
export function remarks(point: ComparisonPoint, index: number, answers: Answers): string[] {
  return [
    point.verdict === "does_not_fit" && "does not fit",
    !point.is_quote && "not a quote",
    point.is_pareto && "best of its kind",
    index === answers.cheapest && "cheapest in time",
    index === answers.fastest && "fastest in budget",
  ].filter((remark) => remark !== false);
}
