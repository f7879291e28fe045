import type { Catalogue, EstimateRequest, GpuType, Preset, PresetId, Repair } from "@/api/types";

/** Numeric form fields, by their path in the API. The catalogue names limits and sliders by the same paths. */
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

/** Fields of a job's cost and duration limits. They are part of the job and do not change its estimate. */
export const LIMIT_FIELDS = ["max_cost_usd", "max_duration_hours"] as const;
export const OPTIONAL_FIELDS: ReadonlySet<Field> = new Set<Field>([
  "hyperparameters.alpha",
  "hyperparameters.dropout",
  "training.sequence_length",
  "training.gradient_accumulation",
  ...LIMIT_FIELDS,
]);

export type TrainingOptions = NonNullable<EstimateRequest["training"]>;
/** Training options with a fixed set of values. The Estimator fills in those that are left out and lists them as assumptions. */
export const CHOICES = ["method", "precision", "stack", "activation_checkpointing", "packing"] as const;
export type Choice = (typeof CHOICES)[number];
/** Selects every linear module, so it excludes the others. */
const ALL_MODULES = "all-linear";
/** Selected options as URL values: an enum value of the API, `true` or `false`. */
export type Choices = Readonly<Partial<Record<Choice, string>>>;
export const FRACTIONAL_FIELDS: ReadonlySet<Field> = new Set<Field>([
  "hyperparameters.learning_rate",
  "hyperparameters.alpha",
  "hyperparameters.dropout",
  ...LIMIT_FIELDS,
]);

/** The state of the form. A value of null is left out of the request; NaN stands for text that is not a number. */
export type Configuration = {
  readonly datasetId: string | null;
  readonly presetId: PresetId;
  /** Preset that custom values are based on. */
  readonly basedOn: PresetId;
  readonly gpuType: string;
  /** Null: no base model, so the estimate is the reference estimate. */
  readonly baseModel: string | null;
  readonly choices: Choices;
  /** Modules that get an adapter. Empty: the default modules. */
  readonly targetModules: readonly string[];
  /** What to validate with: a share of the samples (`0.05`), or another dataset's id. Null: nothing. */
  readonly validation: string | null;
  /** Provider whose price is used. Null: the catalogue's own price. */
  readonly provider: string | null;
  /** What the job is called. Empty: nothing. */
  readonly name: string;
  readonly labels: readonly string[];
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
    validation: null,
    provider: null,
    name: "",
    labels: [],
    values: {
      ...hyperparameterValues(preset.hyperparameters),
      "gpu_config.count": gpus.count,
      "training.sequence_length": null,
      "training.gradient_accumulation": null,
      max_cost_usd: null,
      max_duration_hours: null,
    },
  };
}

/** Returns the GPU types that can be selected. Some need a base model, because the reference estimate has no throughput for them. */
export function gpuTypes(catalogue: Catalogue, { baseModel }: Configuration): readonly GpuType[] {
  return baseModel === null ? catalogue.gpu_types : [...catalogue.gpu_types, ...catalogue.model_gpu_types];
}

export function gpuTypeOf(catalogue: Catalogue, configuration: Configuration): GpuType | undefined {
  return gpuTypes(catalogue, configuration).find(({ type }) => type === configuration.gpuType);
}

/** Selects a GPU type. Keeps the provider if it offers that type, else uses the catalogue's own price. */
export function withGpuType(catalogue: Catalogue, configuration: Configuration, gpuType: string): Configuration {
  const changed = { ...configuration, gpuType };
  const offered = gpuTypeOf(catalogue, changed)?.offers.some(({ provider }) => provider === configuration.provider);
  return offered ? changed : { ...changed, provider: null };
}

/** Selects a dataset. A job does not validate with the dataset that it trains on. */
export function withDataset(configuration: Configuration, datasetId: string): Configuration {
  return { ...configuration, datasetId, validation: configuration.validation === datasetId ? null : configuration.validation };
}

/** The share of the samples that is held back for validation. Null: none, or another dataset. */
export function validationShare(validation: string | null): number | null {
  const share = validation === null ? Number.NaN : Number(validation);
  return Number.isNaN(share) ? null : share;
}

/** Adds or removes a target module. */
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
    values: { ...configuration.values, ...hyperparameterValues(preset.hyperparameters) },
  };
}

/** Sets a value. A changed hyperparameter makes the preset `custom`; other fields are not part of a preset. */
export function withValue(configuration: Configuration, field: Field, value: number | null): Configuration {
  const values = { ...configuration.values, [field]: value };
  if (!field.startsWith("hyperparameters.")) return { ...configuration, values };
  return { ...configuration, presetId: "custom", values };
}

type Hyperparameters = Preset["hyperparameters"];

/** The form values of a set of hyperparameters. */
export function hyperparameterValues(hyperparameters: Hyperparameters): Pick<Configuration["values"], Extract<Field, `hyperparameters.${string}`>> {
  return {
    "hyperparameters.learning_rate": hyperparameters.learning_rate,
    "hyperparameters.batch_size": hyperparameters.batch_size,
    "hyperparameters.epochs": hyperparameters.epochs,
    "hyperparameters.rank": hyperparameters.rank,
    "hyperparameters.alpha": hyperparameters.alpha ?? null,
    "hyperparameters.dropout": hyperparameters.dropout ?? null,
  };
}

type Patch = Repair["patch"];

/** Applies a repair: sets the fields of its patch and leaves the others unchanged. */
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
