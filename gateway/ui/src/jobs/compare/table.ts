import type { Job } from "@/api/types";
import { TRAINING_CHOICES } from "@/components/models/training-choices";
import { formatMetric } from "@/jobs/charts/series";
import { capitalise, count, duration, money, moneyChange, scientific } from "@/lib/format";

/** A row of the comparison: a value for each job. `differs`: whether they are not all the same. */
export type ComparedRow = { readonly name: string; readonly values: readonly string[]; readonly differs: boolean };
export type ComparedGroup = { readonly title: string; readonly isConfiguration: boolean; readonly rows: readonly ComparedRow[] };

type Field = readonly [name: string, value: (job: Job) => string | null];

const NONE = "–";

const RESULTS: readonly Field[] = [
  ["Status", (job) => `${capitalise(job.status)}${job.simulated ? " (simulated)" : ""}`],
  ["Steps", (job) => `${count(job.current_step)} of ${count(job.total_steps)}`],
  ["Loss", (job) => metric(job, "loss")],
  ["Eval loss", (job) => metric(job, "eval_loss")],
  ["GPU time", (job) => (job.billed_seconds > 0 ? duration(job.billed_seconds / 3600) : null)],
  ["Cost", (job) => (costOf(job) > 0 ? `${money(costOf(job))}${job.is_final ? "" : " so far"}` : null)],
];

const FORECAST: readonly Field[] = [
  ["Cost, P50", (job) => money(forecastCost(job))],
  ["Cost, 80 % range", (job) => job.forecast && `${money(job.forecast.cost.p10)} – ${money(job.forecast.cost.p90)}`],
  ["Cost against P50", (job) => errorOf(job, costOf(job), forecastCost(job), moneyChange)],
  ["Time, P50", (job) => job.forecast && duration(job.forecast.seconds.p50 / 3600)],
  [
    "Time against P50",
    (job) => job.forecast && errorOf(job, job.billed_seconds, job.forecast.seconds.p50, (seconds) => `${seconds < 0 ? "−" : "+"}${duration(Math.abs(seconds) / 3600)}`),
  ],
];

const CONFIGURATION: readonly Field[] = [
  ["Dataset", (job) => `${job.dataset.name}${job.dataset_deleted ? " (deleted)" : ""}`],
  ["Training pairs", (job) => (job.dataset.total_training_pairs === null ? null : count(job.dataset.total_training_pairs))],
  ["Base model", (job) => job.base_model],
  ["Preset", (job) => capitalise(job.preset_id)],
  ["GPUs", (job) => `${job.gpu_config.count} × ${job.gpu_config.type}`],
  ["Provider", (job) => job.provider],
  ["Learning rate", (job) => scientific(job.hyperparameters.learning_rate)],
  ["Batch size", (job) => String(job.hyperparameters.batch_size)],
  ["Epochs", (job) => String(job.hyperparameters.epochs)],
  ["LoRA rank", (job) => String(job.hyperparameters.rank)],
  ["LoRA alpha", (job) => textOf(job.hyperparameters.alpha)],
  ["Dropout", (job) => textOf(job.hyperparameters.dropout)],
];

const LIMITS: readonly Field[] = [
  ["Cost limit", (job) => (job.max_cost_usd === null ? null : money(job.max_cost_usd))],
  ["Duration limit", (job) => (job.max_duration_seconds === null ? null : duration(job.max_duration_seconds / 3600))],
  ["Priority", (job) => String(job.priority)],
];

/** Jobs side by side. Rows without any value are left out. */
export function comparedGroups(jobs: readonly Job[]): ComparedGroup[] {
  // The plan has what the Estimator filled in; a job without a base model has neither.
  const options = [...new Set(jobs.flatMap((job) => Object.keys(optionsOf(job))))];
  const training = options.map((name): Field => [optionLabel(name), (job) => optionText(name, optionsOf(job)[name])]);
  return [
    group("Results", false, RESULTS, jobs),
    group("Forecast", false, FORECAST, jobs),
    group("Configuration", true, [...CONFIGURATION, ...training, ...LIMITS], jobs),
  ];
}

function group(title: string, isConfiguration: boolean, fields: readonly Field[], jobs: readonly Job[]): ComparedGroup {
  const rows = fields.flatMap(([name, value]) => {
    const values = jobs.map((job) => value(job) ?? NONE);
    return values.every((text) => text === NONE) ? [] : [{ name, values, differs: new Set(values).size > 1 }];
  });
  return { title, isConfiguration, rows };
}

function optionsOf(job: Job): Readonly<Record<string, unknown>> {
  return job.plan?.training ?? job.training ?? {};
}

function optionLabel(name: string): string {
  return TRAINING_CHOICES.find(({ choice }) => choice === name)?.label ?? capitalise(name.replaceAll("_", " "));
}

/** The value of a training option in the words of the form. */
function optionText(name: string, value: unknown): string | null {
  const values = TRAINING_CHOICES.find(({ choice }) => choice === name)?.values ?? [];
  return values.find(([key]) => key === String(value))?.[1] ?? textOf(value);
}

function textOf(value: unknown): string | null {
  if (value === null || value === undefined) return null;
  if (Array.isArray(value)) return value.length === 0 ? null : value.join(" ");
  if (typeof value === "boolean") return value ? "On" : "Off";
  return typeof value === "number" || typeof value === "string" ? String(value) : JSON.stringify(value);
}

function metric(job: Job, name: string): string | null {
  const value = job.current_metrics[name];
  return typeof value === "number" ? formatMetric(name, value) : null;
}

function costOf(job: Job): number {
  return job.final_cost ?? job.current_cost;
}

function forecastCost(job: Job): number {
  return job.forecast?.cost.p50 ?? job.estimated_total_cost;
}

/** The difference of what a completed job took from its P50, with its share. Other jobs took less than they would have. */
function errorOf(job: Job, actual: number, p50: number, format: (difference: number) => string): string | null {
  if (job.status !== "completed" || p50 <= 0) return null;
  const share = Math.round((actual / p50 - 1) * 100);
  return `${format(actual - p50)} (${share < 0 ? "−" : "+"}${Math.abs(share)} %)`;
}
