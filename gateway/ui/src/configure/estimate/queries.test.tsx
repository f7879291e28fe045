import { act, renderHook } from "@testing-library/react";
import { describe, expect, it } from "vitest";

import type { EstimateRequest } from "@/api/types";
import { calls, pass, installFakeNetwork, wrapper } from "@/testing/network";
import { ESTIMATE_DELAY_MS, useEstimateCost } from "./queries";

installFakeNetwork();

function configuration(count: number): EstimateRequest {
  return {
    dataset_id: "d",
    gpu_config: { type: "A100-80GB", count },
    hyperparameters: { batch_size: 4, epochs: 3, learning_rate: 5e-5, rank: 16 },
  };
}

describe("useEstimateCost", () => {
  const render = (count: number | null) =>
    renderHook(({ request }) => useEstimateCost(request), {
      wrapper,
      initialProps: { request: count === null ? null : configuration(count) },
    });

  it("sends one request for many changes, half a second after the last one", async () => {
    const { rerender, result } = render(1);
    await pass(1);
    await act(() => calls[0]!.respond({ estimated_cost: 1 }));
    for (let count = 2; count <= 8; count += 1) {
      rerender({ request: configuration(count) });
      await pass(100);
    }
    expect(calls).toHaveLength(1);
    expect(result.current.isEstimating).toBe(true);
    await pass(ESTIMATE_DELAY_MS - 101);
    expect(calls).toHaveLength(1);
    await pass(2);
    expect(calls).toHaveLength(2);
    expect(calls[1]!.body).toEqual(configuration(8));
  });

  it("aborts an outdated request and never shows its response", async () => {
    const { rerender, result } = render(1);
    await pass(1);
    rerender({ request: configuration(2) });
    await pass(ESTIMATE_DELAY_MS + 1);
    expect(calls[0]!.signal.aborted).toBe(true);
    await act(() => calls[1]!.respond({ estimated_cost: 2 }));
    await act(() => calls[0]!.respond({ estimated_cost: 1 }));
    expect(result.current).toMatchObject({ estimate: { estimated_cost: 2 }, isCurrent: true, isEstimating: false });
  });

  it("keeps the last estimate until the next one arrives, and marks it as outdated", async () => {
    const { rerender, result } = render(1);
    await pass(1);
    await act(() => calls[0]!.respond({ estimated_cost: 1 }));
    rerender({ request: configuration(2) });
    expect(result.current).toMatchObject({ estimate: { estimated_cost: 1 }, isCurrent: false, isEstimating: true });
  });

  it("sends nothing without a request", async () => {
    const { result } = render(null);
    await pass(5000);
    expect(calls).toHaveLength(0);
    expect(result.current).toMatchObject({ isCurrent: false, isEstimating: false });
  });

  it("has the error of a failed estimate", async () => {
    const { result } = render(1);
    await pass(1);
    await act(() => calls[0]!.respond({ error: "Dataset not ready for training", details: "", reason: "DATASET_NOT_READY" }, 400));
    expect(result.current.error).toMatchObject({ status: 400, reason: "DATASET_NOT_READY" });
    expect(result.current.isCurrent).toBe(false);
  });
});
