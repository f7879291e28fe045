import type { Catalogue, CreateJobRequest, EstimateRequest } from "@/api/types";
import { FIELDS, validationShare, type Configuration, type Field, type TrainingOptions } from "./configuration";
import { fieldError } from "./limits";

/** The request for an estimate, or null while a value is missing or invalid. */
export function estimateRequest(catalogue: Catalogue, configuration: Configuration): EstimateRequest | null {
  const { datasetId, values } = configuration;
  if (datasetId === null || FIELDS.some((field) => fieldError(catalogue, field, values[field]) !== null)) return null;
  const required = (field: Field): number => {
    const value = values[field];
    if (value === null) throw new Error(`${field} is valid, so it is set`);
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
          training: trainingOptions(configuration),
          ...(configuration.provider === null ? {} : { provider: configuration.provider }),
        }),
  };
}

function trainingOptions({ choices, targetModules, validation, values }: Configuration): TrainingOptions {
  const share = validationShare(validation);
  const length = values["training.sequence_length"];
  const accumulation = values["training.gradient_accumulation"];
  const chosen = Object.entries(choices).map(([name, word]) => [name, word === "true" ? true : word === "false" ? false : word]);
  return {
    ...(Object.fromEntries(chosen) as TrainingOptions),
    ...(length === null ? {} : { sequence_length: length }),
    ...(accumulation === null ? {} : { gradient_accumulation: accumulation }),
    ...(targetModules.length === 0 ? {} : { target_modules: [...targetModules] }),
    ...(validation === null ? {} : share === null ? { validation_dataset_id: validation } : { validation_fraction: share }),
  };
}

/** The request that creates a job: the estimated configuration, its preset, its name and labels, and its limits. */
export function createJobRequest(request: EstimateRequest, { presetId, name, labels, values }: Configuration): CreateJobRequest {
  const { max_cost_usd: cost, max_duration_hours: hours } = values;
  return {
    ...request,
    preset_id: presetId,
    ...(name ? { name } : {}),
    ...(labels.length > 0 ? { labels: [...labels] } : {}),
    ...(cost === null ? {} : { max_cost_usd: cost }),
    ...(hours === null ? {} : { max_duration_seconds: Math.max(1, Math.round(hours * 3600)) }),
  };
}

/** How many training pairs an optimizer step takes, in words: `4 × 2 GPUs = 8 pairs`. */
export function effectiveBatch({ base_model: model, gpu_config: gpus, hyperparameters, training }: EstimateRequest): string {
  const batch = hyperparameters.batch_size;
  // The reference estimate counts the batch size once, whatever the number of GPUs.
  if (!model) return `${batch} ${batch === 1 ? "pair" : "pairs"}`;
  const accumulation = training?.gradient_accumulation ?? 1;
  const factors = [`${batch}`, ...(gpus.count > 1 ? [`${gpus.count} GPUs`] : []), ...(accumulation > 1 ? [`${accumulation} batches`] : [])];
  const pairs = batch * gpus.count * accumulation;
  return factors.length === 1 ? `${pairs} ${pairs === 1 ? "pair" : "pairs"}` : `${factors.join(" × ")} = ${pairs} pairs`;
}
