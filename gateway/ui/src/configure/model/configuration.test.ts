import { describe, expect, it } from "vitest";

import type { Catalogue } from "@/api/types";
import { fromSearch, hasConfiguration, toSearch } from "./address";
import { startingConfiguration, withDataset, withGpuType, withModule, withPatch, withPreset, withValue } from "./configuration";
import { fieldError, parseNumber } from "./limits";
import { createJobRequest, estimateRequest } from "./requests";

const catalogue: Catalogue = {
  gpu_types: [
    { type: "A", name: "A", price_usd_per_hour: 1, tokens_per_second: 1, memory_gb: 1, note: "", bandwidth_gb_s: 1, tflops_16bit: 1, tflops_8bit: null, price_date: "2026-11-01", price_source: "", offers: [] },
  ],
  presets: [
    { id: "fast", name: "Fast", description: "", hyperparameters: { learning_rate: 1e-4, batch_size: 8, epochs: 1, rank: 8, alpha: 16, dropout: 0.05 } },
    { id: "balanced", name: "Balanced", description: "", hyperparameters: { learning_rate: 5e-5, batch_size: 4, epochs: 3, rank: 16, alpha: 32, dropout: 0.1 } },
  ],
  limits: [
    { field: "hyperparameters.batch_size", min: 1, max: 64, min_exclusive: false, max_exclusive: false },
    { field: "hyperparameters.learning_rate", min: 1e-5, max: 1e-3, min_exclusive: false, max_exclusive: false },
    { field: "hyperparameters.alpha", min: 0, max: null, min_exclusive: true, max_exclusive: false },
    { field: "hyperparameters.dropout", min: 0, max: 1, min_exclusive: false, max_exclusive: true },
  ],
  sliders: [],
  defaults: { preset_id: "balanced", gpu_config: { type: "A", count: 2 } },
  version: "1",
  model_gpu_types: [],
  base_models: [],
  target_modules: ["q_proj", "v_proj", "all-linear"],
  effective_at: "2026-11-01T00:00:00Z",
};
const start = startingConfiguration(catalogue, "d");

describe("a configuration", () => {
  it("starts with the catalogue's defaults", () => {
    expect(start).toMatchObject({ presetId: "balanced", gpuType: "A" });
    expect(start.values).toMatchObject({ "gpu_config.count": 2, "hyperparameters.epochs": 3 });
  });

  it("creates a job with its name and labels, which its estimate does not depend on", () => {
    const request = estimateRequest(catalogue, start)!;
    const named = { ...start, name: "Night", labels: ["a"] };
    expect(estimateRequest(catalogue, named)).toEqual(request);
    expect(createJobRequest(request, named)).toEqual({ ...request, preset_id: "balanced", name: "Night", labels: ["a"] });
    expect(createJobRequest(request, start)).toEqual({ ...request, preset_id: "balanced" });
  });

  it("becomes custom with a changed value and remembers what it was based on", () => {
    const changed = withValue(start, "hyperparameters.epochs", 5);
    expect(changed).toMatchObject({ presetId: "custom", basedOn: "balanced" });
    expect(withValue(start, "gpu_config.count", 8).presetId).toBe("balanced");
  });

  it("takes every value of a preset at once and leaves the GPUs alone", () => {
    const chosen = withPreset(withValue(start, "gpu_config.count", 5), catalogue.presets[0]!);
    expect(estimateRequest(catalogue, chosen)).toEqual({
      dataset_id: "d",
      gpu_config: { type: "A", count: 5 },
      hyperparameters: { learning_rate: 1e-4, batch_size: 8, epochs: 1, rank: 8, alpha: 16, dropout: 0.05 },
    });
  });

  it.each([
    ["as it starts", start],
    ["with changed values", withValue(withValue(start, "hyperparameters.learning_rate", 1.23e-4), "hyperparameters.rank", 20)],
    ["without optional values", withValue(withValue(start, "hyperparameters.alpha", null), "hyperparameters.dropout", null)],
    ["with a name and labels", { ...start, name: "Night & day", labels: ["two words", "b"] }],
    ["out of its limits", withValue(start, "hyperparameters.batch_size", 999)],
    [
      "with a base model",
      { ...withValue(start, "training.sequence_length", 4096), baseModel: "m", choices: { method: "qlora", packing: "false" } },
    ],
    ["with a share for validation", { ...start, baseModel: "m", validation: "0.05" }],
    ["with a dataset for validation", { ...start, baseModel: "m", validation: "e" }],
    ["of another preset", withPreset(start, catalogue.presets[0]!)],
  ])("survives its URL %s", (_, configuration) => {
    const read = fromSearch(new URLSearchParams(toSearch(configuration).toString()), catalogue, start);
    expect(read).toEqual(configuration);
  });

  it("is custom when a URL has a preset and another value", () => {
    const read = fromSearch(new URLSearchParams("preset=fast&epochs=7"), catalogue, start);
    expect(read).toMatchObject({ presetId: "custom", basedOn: "fast" });
    const unnamed = fromSearch(new URLSearchParams("batch=32"), catalogue, start);
    expect(unnamed).toMatchObject({ presetId: "custom", basedOn: "balanced" });
  });

  it("has no request while a value is invalid or there is no dataset", () => {
    expect(estimateRequest(catalogue, withValue(start, "hyperparameters.batch_size", 65))).toBeNull();
    expect(estimateRequest(catalogue, startingConfiguration(catalogue, null))).toBeNull();
  });
});

describe("a repair", () => {
  it("sets the fields of its patch and leaves the others", () => {
    const before = { ...start, baseModel: "m", choices: { stack: "tuned" } };
    const repaired = withPatch(catalogue, before, {
      gpu_config: null,
      hyperparameters: { batch_size: 1, epochs: null, alpha: null },
      training: { method: "qlora", gradient_accumulation: 8, packing: true, target_modules: [], stack: null },
    } as unknown as Parameters<typeof withPatch>[2]);
    expect(estimateRequest(catalogue, repaired)).toEqual({
      ...estimateRequest(catalogue, before),
      hyperparameters: { ...estimateRequest(catalogue, before)?.hyperparameters, batch_size: 1 },
      base_model: "m",
      training: { stack: "tuned", method: "qlora", gradient_accumulation: 8, packing: true },
    });
    expect(repaired.presetId).toBe("custom");
  });
});

describe("modules and prices", () => {
  const model = { ...start, baseModel: "m" };
  const offer = { provider: "P", usd_per_hour: 1, date: "2026-11-01", source: "" };
  const other = { ...catalogue.gpu_types[0]!, type: "B" };
  const several = { ...catalogue, gpu_types: [{ ...catalogue.gpu_types[0]!, offers: [offer] }, other] };

  it("all-linear excludes the other modules", () => {
    const two = withModule(withModule(model, "q_proj", true), "v_proj", true);
    expect(two.targetModules).toEqual(["q_proj", "v_proj"]);
    expect(estimateRequest(catalogue, two)?.training).toEqual({ target_modules: ["q_proj", "v_proj"] });
    expect(withModule(two, "all-linear", true).targetModules).toEqual(["all-linear"]);
    expect(withModule(withModule(two, "all-linear", true), "q_proj", true).targetModules).toEqual(["q_proj"]);
    expect(withModule(two, "q_proj", false).targetModules).toEqual(["v_proj"]);
    expect(estimateRequest(catalogue, model)?.training).toEqual({});
  });

  it("validates with a share of the samples or with another dataset, which is not the one that is trained on", () => {
    const training = (validation: string | null) => estimateRequest(catalogue, { ...model, validation })?.training;
    expect(training(null)).toEqual({});
    expect(training("0.05")).toEqual({ validation_fraction: 0.05 });
    expect(training("e")).toEqual({ validation_dataset_id: "e" });
    expect(withDataset({ ...model, validation: "e" }, "e").validation).toBeNull();
    expect(withDataset({ ...model, validation: "e" }, "f").validation).toBe("e");
  });

  it("a provider needs a base model, and is dropped with a GPU type that it does not offer", () => {
    const changed = { ...model, provider: "P" };
    expect(estimateRequest(several, changed)).toMatchObject({ provider: "P" });
    expect(estimateRequest(several, { ...changed, baseModel: null })).not.toHaveProperty("provider");
    expect(withGpuType(several, changed, "A").provider).toBe("P");
    expect(withGpuType(several, changed, "B").provider).toBeNull();
  });

  it("a URL has both", () => {
    const changed = { ...model, provider: "P & Q", targetModules: ["q_proj", "v_proj"] };
    expect(fromSearch(new URLSearchParams(toSearch(changed).toString()), several, start)).toEqual(changed);
    expect(["model=m", "modules=q_proj", "packing=true", "datasetId=d"].map((each) => hasConfiguration(new URLSearchParams(each)))).toEqual(
      [true, true, true, false],
    );
  });
});

describe("fieldError", () => {
  it.each([
    ["hyperparameters.batch_size", 65, "65 is too high. Enter a number from 1 to 64."],
    ["hyperparameters.batch_size", 0, "0 is too low. Enter a number from 1 to 64."],
    ["hyperparameters.batch_size", 2.5, "Enter a whole number from 1 to 64."],
    ["hyperparameters.batch_size", Number.NaN, "This is not a number. Enter one from 1 to 64."],
    ["hyperparameters.batch_size", null, "Enter a number from 1 to 64."],
    ["hyperparameters.learning_rate", 2e-3, "2e-3 is too high. Enter a number from 1e-5 to 1e-3."],
    ["hyperparameters.alpha", 0, "0 is too low. Enter a number above 0."],
    ["hyperparameters.dropout", 1, "1 is too high. Enter a number from 0 to below 1."],
    ["hyperparameters.dropout", null, null],
    ["hyperparameters.batch_size", 64, null],
    ["hyperparameters.learning_rate", 1e-5, null],
  ] as const)("explains %s = %s", (field, value, message) => {
    expect(fieldError(catalogue, field, value)).toBe(message);
  });
});

describe("parseNumber", () => {
  it.each([
    ["5e-5", 5e-5],
    [" 12 ", 12],
    [".5", 0.5],
    ["", null],
    ["1_000", Number.NaN],
    ["0x10", Number.NaN],
    ["12abc", Number.NaN],
    ["Infinity", Number.NaN],
  ])("reads %j", (text, value) => {
    expect(parseNumber(text)).toBe(value);
  });
});
