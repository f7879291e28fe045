import { describe, expect, it } from "vitest";

import type { JobMetrics } from "@/api/types";
import { chartsOf, formatMetric, metricsCsv, smooth } from "./series";

const point = (step: number, values: Record<string, number>) => ({ step, epoch: step / 10, values, created_at: "" }) satisfies JobMetrics;
const points = [point(1, { loss: 2, grad_norm: 3 }), point(2, { loss: 1 }), point(2, {}), point(4, { eval_loss: 1.5 })];

describe("charts", () => {
  it("put a training metric and its evaluation into one, loss first", () => {
    expect(chartsOf(points)).toEqual([
      {
        title: "Loss",
        steps: [1, 2, 4],
        series: [
          { name: "loss", label: "train", values: [2, 1, null] },
          { name: "eval_loss", label: "eval", values: [null, null, 1.5] },
        ],
      },
      { title: "Grad norm", steps: [1], series: [{ name: "grad_norm", label: "train", values: [3] }] },
    ]);
  });

  it("are exported with a column for each metric", () => {
    expect(metricsCsv([point(1, { loss: 2, 'a,"b': 1 }), point(2, { loss: 1 })])).toBe('step,epoch,"a,""b",loss\n1,0.1,1,2\n2,0.2,,1\n');
  });
});

it("smooths from the first value on and leaves gaps", () => {
  expect(smooth([4, null, 4], 0.9)).toEqual([expect.closeTo(4, 9), null, expect.closeTo(4, 9)]);
  expect(smooth([0, 1], 0.5)).toEqual([0, expect.closeTo(2 / 3, 9)]);
  expect(smooth([1, 3], 0)).toEqual([1, 3]);
});

it.each([
  ["learning_rate", 5e-5, "5e-5"],
  ["loss", 1.23456, "1.235"],
  ["tokens_per_second", 3512.4, "3,512"],
  ["total_flos", 1.04e15, "1.0 × 10¹⁵"],
])("formats %s of %s", (name, value, text) => expect(formatMetric(name, value)).toBe(text));
