import { describe, expect, it } from "vitest";

import type { Job, JobMetrics } from "@/api/types";
import { overlay } from "./overlay";
import { compareAddress, firstSlots, idsFromSearch, runNames, toggled } from "./runs";
import { comparedGroups } from "./table";

const point = (step: number, values: Record<string, number>) => ({ step, epoch: 0, values, created_at: "" }) satisfies JobMetrics;

describe("overlaid curves", () => {
  const charts = overlay([
    { name: "one", colour: 0, points: [point(1, { loss: 2, learning_rate: 1e-4 }), point(3, { loss: 1 })] },
    { name: "two", colour: 5, points: [point(2, { loss: 4, eval_loss: 3 })] },
  ]);

  it("have a chart for each metric, the loss first, over the steps of all jobs", () => {
    expect(charts.map(({ title }) => title)).toEqual(["Loss", "Eval loss", "Learning rate"]);
    expect(charts[0]!.steps).toEqual([1, 2, 3]);
    expect(charts[0]!.series).toEqual([
      { name: "loss", label: "one", colour: 0, values: [2, null, 1] },
      { name: "loss", label: "two", colour: 5, values: [null, 4, null] },
    ]);
  });

  it("leave out jobs that did not report a metric", () => {
    expect(charts[1]).toEqual({ title: "Eval loss", steps: [2], series: [{ name: "eval_loss", label: "two", colour: 5, values: [3] }] });
  });
});

describe("compared runs", () => {
  it("are in the address, once each, as many as can be read", () => {
    const ids = Array.from({ length: 23 }, (_, index) => `id${index}`);
    const search = new URL(compareAddress([...ids, "id0"]), "http://x").searchParams;
    expect(idsFromSearch(search)).toEqual({ ids: ids.slice(0, 20), left: 3 });
    expect(idsFromSearch(new URLSearchParams("ids=,a,,a"))).toEqual({ ids: ["a"], left: 0 });
  });

  it("are told apart by their id where they have one title", () => {
    const job = (id: string, name: string | null) => ({ id, name, dataset: { name: "Reviews" } }) as Job;
    const names = runNames([job("0123456789", null), job("abcdefghij", "Reviews"), job("c", "Night")]);
    expect([...names.values()]).toEqual(["Reviews (01234567)", "Reviews (abcdefgh)", "Night"]);
  });

  it("keep their colours when others are hidden, and take a free one when shown", () => {
    const slots = firstSlots(["a", "b", "c"]);
    const hidden = toggled(slots, "b");
    expect(hidden.slice(0, 3)).toEqual(["a", null, "c"]);
    expect(toggled(hidden, "d").slice(0, 3)).toEqual(["a", "d", "c"]);
  });

  it("have no ninth colour", () => {
    const slots = firstSlots(["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    expect(slots).not.toContain("9");
    expect(toggled(slots, "9")).toEqual(slots);
    expect(toggled(toggled(slots, "3"), "9")[2]).toBe("9");
  });
});

describe("configurations side by side", () => {
  const job = (fields: Partial<Job>) =>
    ({
      status: "completed",
      is_final: true,
      simulated: false,
      current_step: 10,
      total_steps: 10,
      current_metrics: { loss: 0.5 },
      billed_seconds: 3600,
      current_cost: 11,
      final_cost: 11,
      estimated_total_cost: 10,
      forecast: { cost: { p10: 8, p50: 10, p90: 13 }, seconds: { p10: 3000, p50: 4000, p90: 5000 } },
      dataset: { name: "Reviews", total_training_pairs: 40 },
      dataset_deleted: false,
      base_model: null,
      preset_id: "balanced",
      gpu_config: { type: "H100", count: 2 },
      provider: null,
      hyperparameters: { learning_rate: 5e-5, batch_size: 4, epochs: 3, rank: 16, alpha: null, dropout: null },
      plan: null,
      training: null,
      max_cost_usd: null,
      max_duration_seconds: null,
      priority: 5,
      ...fields,
    }) as Job;
  const row = (jobs: Job[], name: string) => comparedGroups(jobs).flatMap(({ rows }) => rows).find((one) => one.name === name);

  it("mark what differs and leave out what no job has", () => {
    const jobs = [job({}), job({ gpu_config: { type: "H100", count: 4 } })];
    expect(row(jobs, "GPUs")).toEqual({ name: "GPUs", values: ["2 × H100", "4 × H100"], differs: true });
    expect(row(jobs, "Batch size")).toMatchObject({ values: ["4", "4"], differs: false });
    expect(row(jobs, "Provider")).toBeUndefined();
  });

  it("compare the training options with their defaults filled in", () => {
    const plan = { training: { method: "qlora", stack: "plain", packing: true, target_modules: ["q_proj", "v_proj"] } } as Job["plan"];
    const jobs = [job({ plan, training: { packing: true } }), job({})];
    expect(row(jobs, "Method")!.values).toEqual(["QLoRA (4-bit)", "–"]);
    expect(row(jobs, "Kernels")!.values).toEqual(["Eager", "–"]);
    expect(row(jobs, "Packing")!.values).toEqual(["On", "–"]);
    expect(row(jobs, "Target modules")!.values).toEqual(["q_proj v_proj", "–"]);
  });

  it("give the forecast's error of completed jobs only", () => {
    const jobs = [job({}), job({ final_cost: 9 }), job({ status: "failed", final_cost: 3 }), job({ forecast: null, final_cost: 10 })];
    expect(row(jobs, "Cost against P50")!.values).toEqual(["+$1.00 (+10 %)", "−$1.00 (−10 %)", "–", "+$0.00 (+0 %)"]);
    expect(row(jobs, "Time against P50")!.values).toEqual(["−7 min (−10 %)", "−7 min (−10 %)", "–", "–"]);
  });
});
