import type { Catalogue, Job } from "@/api/types";
import { MAX_NAME_LENGTH, withLabels } from "@/jobs/labels/labels";
import { scientific } from "@/lib/format";
import { CHOICES, FIELDS, hyperparameterValues, OPTIONAL_FIELDS, withPreset, type Choices, type Configuration, type Field } from "./configuration";
import { parseNumber } from "./limits";

/** URL parameters of the numeric fields. */
const PARAMETERS: Readonly<Record<Field, string>> = {
  "gpu_config.count": "gpus",
  "hyperparameters.learning_rate": "lr",
  "hyperparameters.batch_size": "batch",
  "hyperparameters.epochs": "epochs",
  "hyperparameters.rank": "rank",
  "hyperparameters.alpha": "alpha",
  "hyperparameters.dropout": "dropout",
  "training.sequence_length": "length",
  "training.gradient_accumulation": "accumulate",
  max_cost_usd: "maxCost",
  max_duration_hours: "maxHours",
};

/** URL parameters of the other fields. A choice's is its name in the API. */
const NAMES: Readonly<Record<Exclude<keyof Configuration, "values" | "choices">, string>> = {
  datasetId: "datasetId",
  presetId: "preset",
  basedOn: "basedOn",
  gpuType: "gpu",
  baseModel: "model",
  provider: "provider",
  validation: "validation",
  targetModules: "modules",
  name: "name",
  labels: "label",
};

/** Encodes the whole configuration as URL parameters, so that a link shares it. */
export function toSearch(configuration: Configuration): URLSearchParams {
  const search = new URLSearchParams();
  const texts: Record<keyof typeof NAMES, string | null | readonly string[]> = {
    ...configuration,
    basedOn: configuration.presetId === "custom" ? configuration.basedOn : null,
    targetModules: configuration.targetModules.join(" "),
  };
  for (const field of Object.keys(NAMES) as (keyof typeof NAMES)[]) {
    for (const text of [texts[field]].flat()) if (text) search.append(NAMES[field], text);
  }
  for (const [name, word] of Object.entries(configuration.choices)) search.set(name, word);
  for (const field of FIELDS) {
    const value = configuration.values[field];
    if (value !== null && !Number.isNaN(value)) {
      search.set(PARAMETERS[field], field === "hyperparameters.learning_rate" ? scientific(value) : String(value));
    }
  }
  return search;
}

/** Decodes a configuration from URL parameters. Missing parameters are taken from `defaults`. */
export function fromSearch(search: URLSearchParams, catalogue: Catalogue, defaults: Configuration): Configuration {
  const preset = catalogue.presets.find(({ id }) => id === search.get("preset"));
  const basedOn = catalogue.presets.find(({ id }) => id === search.get("basedOn"));
  let configuration = preset ? withPreset(defaults, preset) : basedOn ? withPreset(defaults, basedOn) : defaults;
  const values = { ...configuration.values };
  for (const field of FIELDS) {
    const text = search.get(PARAMETERS[field]);
    if (text !== null) values[field] = parseNumber(text);
    // In a link with custom hyperparameters, a missing optional value is unset and not the preset's.
    else if (OPTIONAL_FIELDS.has(field) && search.get("preset") === "custom" && search.has(PARAMETERS["hyperparameters.rank"])) {
      values[field] = null;
    }
  }
  const choices = CHOICES.flatMap((name) => (search.has(name) ? [[name, search.get(name) ?? ""]] : []));
  const read: Omit<Configuration, "datasetId" | "presetId" | "basedOn"> = {
    values,
    gpuType: search.get("gpu") ?? configuration.gpuType,
    baseModel: search.get("model"),
    choices: Object.fromEntries(choices) as Choices,
    targetModules: search.get("modules")?.split(" ").filter(Boolean) ?? [],
    validation: search.get("validation"),
    provider: search.get("provider"),
    name: (search.get("name") ?? "").trim().slice(0, MAX_NAME_LENGTH),
    labels: withLabels([], search.getAll("label").join()),
  };
  configuration = { ...configuration, ...read };
  const base = catalogue.presets.find(({ id }) => id === configuration.presetId);
  const differs = base && Object.entries(hyperparameterValues(base.hyperparameters)).some(([key, value]) => values[key as Field] !== value);
  const custom = search.get("preset") === "custom" || differs === true;
  return { ...configuration, presetId: custom ? "custom" : configuration.presetId };
}

/** Whether URL parameters hold any part of a configuration besides the dataset. */
export function hasConfiguration(search: URLSearchParams): boolean {
  const names = Object.values(NAMES).filter((name) => name !== NAMES.datasetId);
  return [...names, ...CHOICES, ...Object.values(PARAMETERS)].some((name) => search.has(name));
}

/** The address of a form that is filled with a job's configuration. A deleted dataset is left out. */
export function duplicateAddress(job: Job): string {
  const configuration: Configuration = {
    datasetId: job.dataset_deleted ? null : job.dataset_id,
    presetId: job.preset_id,
    basedOn: job.preset_id === "custom" ? "balanced" : job.preset_id,
    gpuType: job.gpu_config.type,
    baseModel: job.base_model,
    choices: Object.fromEntries(
      CHOICES.flatMap((name) => {
        const value = job.training?.[name];
        return value == null ? [] : [[name, String(value)]];
      }),
    ),
    targetModules: job.training?.target_modules ?? [],
    validation: job.training?.validation_dataset_id ?? (job.training?.validation_fraction ? String(job.training.validation_fraction) : null),
    provider: job.provider,
    name: job.name ?? "",
    labels: job.labels,
    values: {
      ...hyperparameterValues(job.hyperparameters),
      "gpu_config.count": job.gpu_config.count,
      "training.sequence_length": job.training?.sequence_length ?? null,
      "training.gradient_accumulation": job.training?.gradient_accumulation ?? null,
      max_cost_usd: job.max_cost_usd,
      max_duration_hours: job.max_duration_seconds === null ? null : job.max_duration_seconds / 3600,
    },
  };
  return `/training/configure?${toSearch(configuration).toString()}`;
}
