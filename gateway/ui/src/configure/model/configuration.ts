import type { Catalogue, CreateJobRequest, EstimateRequest, GpuType, Job, Preset, PresetId, Repair } from "@/api/types";
import { scientific } from "@/lib/format";

/** The numbers a person sets, by their path in the API: the catalogue names limits and sliders the same way. */
export const FIELDS = [
  "gpu_config.count",
  "hyperparameters.learning_rate",
  "hyperparameters.batch_size",
  "hyperparameters.epochs",
  "hyperparameters.rank",
  "hyperparameters.alpha",
  "hyperparameters.dropout",
  "training.sequence_length",
  "training.gradient_accumulation",
  "max_cost_usd",
  "max_duration_hours",
] as const;
export type Field = (typeof FIELDS)[number];

/** Where a job is stopped: part of what is started, not of what is priced. */
const LIMIT_FIELDS = ["max_cost_usd", "max_duration_hours"] as const;
const OPTIONAL: ReadonlySet<Field> = new Set<Field>([
  "hyperparameters.alpha",
  "hyperparameters.dropout",
  "training.sequence_length",
  "training.gradient_accumulation",
  ...LIMIT_FIELDS,
]);

type Training = NonNullable<EstimateRequest["training"]>;
/** What else a base model's training can be told. What is left out, the Estimator fills in and says so. */
export const CHOICES = ["method", "precision", "stack", "activation_checkpointing", "packing"] as const;
export type Choice = (typeof CHOICES)[number];
/** Stands for every other module, so it stands alone. */
const ALL_MODULES = "all-linear";
/** A choice as an address has it: a word of the contract, `true` or `false`. */
export type Choices = Readonly<Partial<Record<Choice, string>>>;
const FRACTIONAL: ReadonlySet<Field> = new Set<Field>([
  "hyperparameters.learning_rate",
  "hyperparameters.alpha",
  "hyperparameters.dropout",
  ...LIMIT_FIELDS,
]);

/** What a person has set so far. A value of null is left out; NaN is text that is no number, kept until corrected. */
export type Configuration = {
  readonly datasetId: string | null;
  readonly presetId: PresetId;
  /** The preset that custom values started from. */
  readonly basedOn: PresetId;
  readonly gpuType: string;
  /** Null: the reference estimate, whatever model is trained. */
  readonly baseModel: string | null;
  readonly choices: Choices;
  /** Modules that get an adapter. None: as usual. */
  readonly targetModules: readonly string[];
  /** Whose price is taken. Null: the catalogue's own. */
  readonly provider: string | null;
  readonly values: Readonly<Record<Field, number | null>>;
};

export function startingConfiguration(catalogue: Catalogue, datasetId: string | null): Configuration {
  const { preset_id: presetId, gpu_config: gpus } = catalogue.defaults;
  const preset = catalogue.presets.find(({ id }) => id === presetId) ?? catalogue.presets[0];
  if (!preset) throw new Error("The catalogue has no presets");
  return {
    datasetId,
    presetId: preset.id,
    basedOn: preset.id,
    gpuType: gpus.type,
    baseModel: null,
    choices: {},
    targetModules: [],
    provider: null,
    values: {
      ...valuesOf(preset.hyperparameters),
      "gpu_config.count": gpus.count,
      "training.sequence_length": null,
      "training.gradient_accumulation": null,
      max_cost_usd: null,
      max_duration_hours: null,
    },
  };
}

/** GPU types that can be chosen: some can be estimated for a base model only. */
export function gpuTypes(catalogue: Catalogue, { baseModel }: Configuration): readonly GpuType[] {
  return baseModel === null ? catalogue.gpu_types : [...catalogue.gpu_types, ...catalogue.model_gpu_types];
}

export function gpuTypeOf(catalogue: Catalogue, configuration: Configuration): GpuType | undefined {
  return gpuTypes(catalogue, configuration).find(({ type }) => type === configuration.gpuType);
}

/** Another GPU type; its price is the same provider's where that one has it, else the catalogue's own. */
export function withGpuType(catalogue: Catalogue, configuration: Configuration, gpuType: string): Configuration {
  const changed = { ...configuration, gpuType };
  const offered = gpuTypeOf(catalogue, changed)?.offers.some(({ provider }) => provider === configuration.provider);
  return offered ? changed : { ...changed, provider: null };
}

/** A module more or less. */
export function withModule(configuration: Configuration, module: string, chosen: boolean): Configuration {
  const others = configuration.targetModules.filter((one) => one !== module);
  if (!chosen) return { ...configuration, targetModules: others };
  const beside = module === ALL_MODULES ? [] : others.filter((one) => one !== ALL_MODULES);
  return { ...configuration, targetModules: [...beside, module] };
}

export function withPreset(configuration: Configuration, preset: Preset): Configuration {
  return {
    ...configuration,
    presetId: preset.id,
    basedOn: preset.id,
    values: { ...configuration.values, ...valuesOf(preset.hyperparameters) },
  };
}

/** Changing a hyperparameter makes the form custom; changing anything else does not: presets say nothing of it. */
export function withValue(configuration: Configuration, field: Field, value: number | null): Configuration {
  const values = { ...configuration.values, [field]: value };
  if (!field.startsWith("hyperparameters.")) return { ...configuration, values };
  return { ...configuration, presetId: "custom", values };
}

type Hyperparameters = Preset["hyperparameters"];

function valuesOf(held: Hyperparameters): Pick<Configuration["values"], Extract<Field, `hyperparameters.${string}`>> {
  return {
    "hyperparameters.learning_rate": held.learning_rate,
    "hyperparameters.batch_size": held.batch_size,
    "hyperparameters.epochs": held.epochs,
    "hyperparameters.rank": held.rank,
    "hyperparameters.alpha": held.alpha ?? null,
    "hyperparameters.dropout": held.dropout ?? null,
  };
}

type Limit = { min?: number | null; max?: number | null; min_exclusive?: boolean; max_exclusive?: boolean };

/** What is wrong with a value and what would be right; null when nothing is. */
export function fault(catalogue: Catalogue, field: Field, value: number | null): string | null {
  if (value === null) return OPTIONAL.has(field) ? null : `Enter a number${range(catalogue, field)}.`;
  if (Number.isNaN(value)) return `This is not a number. Enter one${range(catalogue, field)}.`;
  const whole = !FRACTIONAL.has(field);
  if (whole && !Number.isInteger(value)) return `Enter a whole number${range(catalogue, field)}.`;
  const limit = limitOf(catalogue, field);
  if (!limit) return null;
  const low = limit.min != null && (value < limit.min || (limit.min_exclusive && value === limit.min));
  const high = limit.max != null && (value > limit.max || (limit.max_exclusive && value === limit.max));
  if (!low && !high) return null;
  return `${plain(field, value)} is too ${low ? "low" : "high"}. Enter a number${range(catalogue, field)}.`;
}

function limitOf(catalogue: Catalogue, field: Field): Limit | undefined {
  // The catalogue speaks of what is configured. A job that may cost or last nothing is no job.
  if ((LIMIT_FIELDS as readonly Field[]).includes(field)) return { min: 0, min_exclusive: true };
  return catalogue.limits.find((one) => one.field === field);
}

function range(catalogue: Catalogue, field: Field): string {
  const limit = limitOf(catalogue, field);
  if (limit?.min == null) return "";
  const from = limit.min_exclusive ? `above ${plain(field, limit.min)}` : `from ${plain(field, limit.min)}`;
  if (limit.max == null) return ` ${from}`;
  return limit.max_exclusive
    ? ` ${from} to below ${plain(field, limit.max)}`
    : ` ${from} to ${plain(field, limit.max)}`;
}

/** A value as the number beside its slider shows it. */
export function plain(field: Field, value: number | null): string {
  if (value === null || Number.isNaN(value)) return "";
  return field === "hyperparameters.learning_rate" ? scientific(value) : String(value);
}

/** The estimate's question, or null while a value is missing or out of its limits. */
export function question(catalogue: Catalogue, configuration: Configuration): EstimateRequest | null {
  const { datasetId, values } = configuration;
  if (datasetId === null || FIELDS.some((field) => fault(catalogue, field, values[field]) !== null)) return null;
  const required = (field: Field): number => {
    const value = values[field];
    if (value === null) throw new Error(`${field} has no fault, so it has a value`);
    return value;
  };
  const alpha = values["hyperparameters.alpha"];
  const dropout = values["hyperparameters.dropout"];
  return {
    dataset_id: datasetId,
    gpu_config: { type: configuration.gpuType, count: required("gpu_config.count") },
    hyperparameters: {
      batch_size: required("hyperparameters.batch_size"),
      epochs: required("hyperparameters.epochs"),
      learning_rate: required("hyperparameters.learning_rate"),
      rank: required("hyperparameters.rank"),
      ...(alpha === null ? {} : { alpha }),
      ...(dropout === null ? {} : { dropout }),
    },
    ...(configuration.baseModel === null
      ? {}
      : {
          base_model: configuration.baseModel,
          training: trainingOf(configuration),
          ...(configuration.provider === null ? {} : { provider: configuration.provider }),
        }),
  };
}

function trainingOf({ choices, targetModules, values }: Configuration): Training {
  const length = values["training.sequence_length"];
  const accumulation = values["training.gradient_accumulation"];
  const chosen = Object.entries(choices).map(([name, word]) => [name, word === "true" ? true : word === "false" ? false : word]);
  return {
    ...(Object.fromEntries(chosen) as Training),
    ...(length === null ? {} : { sequence_length: length }),
    ...(accumulation === null ? {} : { gradient_accumulation: accumulation }),
    ...(targetModules.length === 0 ? {} : { target_modules: [...targetModules] }),
  };
}

type Patch = Repair["patch"];

/** The configuration with what a repair sets, and everything else as it is. */
export function withPatch(
  catalogue: Catalogue,
  configuration: Configuration,
  { gpu_config: gpus, hyperparameters, training }: Patch,
): Configuration {
  const gpuType = gpus?.type as string | null | undefined;
  let changed = gpuType ? withGpuType(catalogue, configuration, gpuType) : configuration;
  const set = (field: Field, value: unknown) => {
    if (typeof value === "number") changed = withValue(changed, field, value);
  };
  set("gpu_config.count", gpus?.count);
  for (const [name, value] of Object.entries(hyperparameters ?? {})) set(`hyperparameters.${name}` as Field, value);
  for (const [name, value] of Object.entries(training ?? {})) {
    if (typeof value === "number") set(`training.${name}` as Field, value);
    else if (isChoice(name) && (typeof value === "string" || typeof value === "boolean")) {
      changed = { ...changed, choices: { ...changed.choices, [name]: String(value) } };
    }
  }
  return changed;
}

function isChoice(name: string): name is Choice {
  return (CHOICES as readonly string[]).includes(name);
}

/** The job to start: what was priced, and where to stop. */
export function creation(asked: EstimateRequest, { presetId, values }: Configuration): CreateJobRequest {
  const { max_cost_usd: cost, max_duration_hours: hours } = values;
  return {
    ...asked,
    preset_id: presetId,
    ...(cost === null ? {} : { max_cost_usd: cost }),
    ...(hours === null ? {} : { max_duration_seconds: Math.max(1, Math.round(hours * 3600)) }),
  };
}

const NAMES: Readonly<Record<Field, string>> = {
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

/** The whole configuration as an address, so that a link shares it. */
export function toSearch(configuration: Configuration): URLSearchParams {
  const search = new URLSearchParams();
  if (configuration.datasetId !== null) search.set("datasetId", configuration.datasetId);
  search.set("preset", configuration.presetId);
  if (configuration.presetId === "custom") search.set("basedOn", configuration.basedOn);
  search.set("gpu", configuration.gpuType);
  if (configuration.baseModel !== null) search.set("model", configuration.baseModel);
  if (configuration.provider !== null) search.set("provider", configuration.provider);
  for (const [name, word] of Object.entries(configuration.choices)) search.set(name, word);
  if (configuration.targetModules.length > 0) search.set("modules", configuration.targetModules.join(" "));
  for (const field of FIELDS) {
    const value = configuration.values[field];
    if (value !== null && !Number.isNaN(value)) {
      search.set(NAMES[field], field === "hyperparameters.learning_rate" ? scientific(value) : String(value));
    }
  }
  return search;
}

/** The configuration an address holds; what it leaves out comes from `otherwise`. Whether it holds any is `holdsConfiguration`. */
export function fromSearch(search: URLSearchParams, catalogue: Catalogue, otherwise: Configuration): Configuration {
  const preset = catalogue.presets.find(({ id }) => id === search.get("preset"));
  const basis = catalogue.presets.find(({ id }) => id === search.get("basedOn"));
  let configuration = preset ? withPreset(otherwise, preset) : basis ? withPreset(otherwise, basis) : otherwise;
  const values = { ...configuration.values };
  for (const field of FIELDS) {
    const text = search.get(NAMES[field]);
    if (text !== null) values[field] = parse(text);
    // A shared link that leaves an optional value out means that it was left out.
    else if (OPTIONAL.has(field) && search.get("preset") === "custom" && search.has(NAMES["hyperparameters.rank"])) {
      values[field] = null;
    }
  }
  const choices = CHOICES.flatMap((name) => (search.has(name) ? [[name, search.get(name) ?? ""]] : []));
  configuration = {
    ...configuration,
    values,
    gpuType: search.get("gpu") ?? configuration.gpuType,
    baseModel: search.get("model"),
    choices: Object.fromEntries(choices) as Choices,
    targetModules: search.get("modules")?.split(" ").filter(Boolean) ?? [],
    provider: search.get("provider"),
  };
  const held = catalogue.presets.find(({ id }) => id === configuration.presetId);
  const differs = held && Object.entries(valuesOf(held.hyperparameters)).some(([key, value]) => values[key as Field] !== value);
  const custom = search.get("preset") === "custom" || differs === true;
  return { ...configuration, presetId: custom ? "custom" : configuration.presetId };
}

export function holdsConfiguration(search: URLSearchParams): boolean {
  return ["preset", "gpu", "model", "provider", "modules", ...CHOICES, ...Object.values(NAMES)].some((name) => search.has(name));
}

/** What a person typed, as a number: null for nothing, NaN for what is none. */
export function parse(text: string): number | null {
  const trimmed = text.trim();
  if (trimmed === "") return null;
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(trimmed) ? Number(trimmed) : Number.NaN;
}

/** A job's frozen configuration as the address of a form filled with it. */
export function duplicateOf(job: Job): string {
  const configuration: Configuration = {
    datasetId: job.dataset_id,
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
    provider: job.provider,
    values: {
      ...valuesOf(job.hyperparameters),
      "gpu_config.count": job.gpu_config.count,
      "training.sequence_length": job.training?.sequence_length ?? null,
      "training.gradient_accumulation": job.training?.gradient_accumulation ?? null,
      max_cost_usd: job.max_cost_usd,
      max_duration_hours: job.max_duration_seconds === null ? null : job.max_duration_seconds / 3600,
    },
  };
  return `/training/configure?${toSearch(configuration).toString()}`;
}
