import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { act, cleanup, renderHook } from "@testing-library/react";
import type { ReactNode } from "react";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import type { CreateJobRequest, EstimateRequest, Job, JobEvent } from "@/api/types";
import {
  ACTIVE_REFRESH_MS,
  after,
  ESTIMATE_DELAY_MS,
  useCreateTrainingJob,
  useEstimateCost,
  useTrainingJob,
  useTrainingJobs,
  withEvent,
} from "./queries";

type Call = { url: string; body: unknown; signal: AbortSignal; answer: (data: unknown, status?: number) => Promise<void> };

let calls: Call[];

/** Stands for the network: each call waits until the test answers it. */
function network(): void {
  calls = [];
  vi.stubGlobal("fetch", async (request: Request, { signal }: { signal: AbortSignal }) => {
    const body: unknown = request.method === "GET" ? null : await request.clone().json();
    return new Promise<Response>((resolve, reject) => {
      signal.addEventListener("abort", () => reject(new DOMException("aborted", "AbortError")));
      calls.push({
        url: request.url,
        body,
        signal,
        answer: async (data, status = 200) => {
          const told = status < 400 ? { success: true, data } : data;
          resolve(new Response(JSON.stringify(told), { status, headers: { "Content-Type": "application/json" } }));
          await vi.advanceTimersByTimeAsync(1);
        },
      });
    });
  });
}

function wrapper({ children }: { children: ReactNode }) {
  return <QueryClientProvider client={queries}>{children}</QueryClientProvider>;
}

let queries: QueryClient;

beforeEach(() => {
  vi.useFakeTimers();
  network();
  queries = new QueryClient({ defaultOptions: { queries: { retry: false } } });
});

afterEach(() => {
  cleanup();
  queries.clear();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const pass = (ms: number) => act(() => vi.advanceTimersByTimeAsync(ms));

function configuration(count: number): EstimateRequest {
  return {
    dataset_id: "d",
    gpu_config: { type: "A100-80GB", count },
    hyperparameters: { batch_size: 4, epochs: 3, learning_rate: 5e-5, rank: 16 },
  };
}

describe("useEstimateCost", () => {
  const render = (count: number | null) =>
    renderHook(({ asked }) => useEstimateCost(asked), {
      wrapper,
      initialProps: { asked: count === null ? null : configuration(count) },
    });

  it("asks once for many changes, half a second after the last one", async () => {
    const { rerender, result } = render(1);
    await pass(1);
    await act(() => calls[0]!.answer({ estimated_cost: 1 }));
    for (let count = 2; count <= 8; count += 1) {
      rerender({ asked: configuration(count) });
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

  it("gives up the question that nobody waits for any more, and never shows its answer", async () => {
    const { rerender, result } = render(1);
    await pass(1);
    rerender({ asked: configuration(2) });
    await pass(ESTIMATE_DELAY_MS + 1);
    expect(calls[0]!.signal.aborted).toBe(true);
    await act(() => calls[1]!.answer({ estimated_cost: 2 }));
    await act(() => calls[0]!.answer({ estimated_cost: 1 }));
    expect(result.current).toMatchObject({ estimate: { estimated_cost: 2 }, isCurrent: true, isEstimating: false });
  });

  it("keeps the last price in view while the next is on its way, and says that it is not current", async () => {
    const { rerender, result } = render(1);
    await pass(1);
    await act(() => calls[0]!.answer({ estimated_cost: 1 }));
    rerender({ asked: configuration(2) });
    expect(result.current).toMatchObject({ estimate: { estimated_cost: 1 }, isCurrent: false, isEstimating: true });
  });

  it("asks nothing without a configuration", async () => {
    const { result } = render(null);
    await pass(5000);
    expect(calls).toHaveLength(0);
    expect(result.current).toMatchObject({ isCurrent: false, isEstimating: false });
  });

  it("tells why there is no estimate", async () => {
    const { result } = render(1);
    await pass(1);
    await act(() => calls[0]!.answer({ error: "Dataset not ready for training", details: "", reason: "DATASET_NOT_READY" }, 400));
    expect(result.current.error).toMatchObject({ status: 400, reason: "DATASET_NOT_READY" });
    expect(result.current.isCurrent).toBe(false);
  });
});

const FINAL: readonly Job["status"][] = ["completed", "failed", "cancelled"];
const job = (status: Job["status"]) => ({ id: "j", status, is_final: FINAL.includes(status), revision: 3 }) as Job;

describe("useTrainingJob", () => {
  it.each(["completed", "failed", "cancelled"] as const)("stops asking once the job is %s", async (status) => {
    renderHook(() => useTrainingJob("j"), { wrapper });
    await pass(1);
    await act(() => calls[0]!.answer(job("running")));
    await pass(ACTIVE_REFRESH_MS + 10);
    expect(calls).toHaveLength(2);
    await act(() => calls[1]!.answer(job(status)));
    await pass(60_000);
    expect(calls).toHaveLength(2);
  });

  it("asks at least every five seconds while the job is active", async () => {
    renderHook(() => useTrainingJob("j"), { wrapper });
    await pass(1);
    await act(() => calls[0]!.answer(job("queued")));
    await pass(5000);
    expect(calls.length).toBeGreaterThanOrEqual(2);
  });

  it("does not ask again for a job that is not there", async () => {
    renderHook(() => useTrainingJob("j"), { wrapper });
    await pass(1);
    await act(() => calls[0]!.answer({ error: "Job not found or access denied" }, 404));
    await pass(60_000);
    expect(calls).toHaveLength(1);
  });
});

describe("after", () => {
  const event = (revision: number, job_id = "j") => ({ job_id, revision, status: "running", progress: 50 }) as JobEvent;

  it("takes what an event says", () => {
    expect(after(job("queued"), event(4))).toMatchObject({ revision: 4, status: "running", progress: 50 });
  });

  it("never goes back, and knows its own", () => {
    expect(after(job("queued"), event(3))).toEqual(job("queued"));
    expect(after(job("queued"), event(4, "other"))).toEqual(job("queued"));
  });
});

describe("withEvent", () => {
  const event = (revision: number) => ({ job_id: "j", revision }) as JobEvent;

  it("puts a new event first", () => {
    expect(withEvent([event(2), event(1)], event(3))).toEqual([event(3), event(2), event(1)]);
  });

  it("shows an event once that was asked for as it came", () => {
    expect(withEvent([event(3), event(2)], event(3))).toEqual([event(3), event(2)]);
  });

  it("keeps what the page has room for", () => {
    const full = Array.from({ length: 50 }, (_, index) => event(50 - index));
    expect(withEvent(full, event(51)).map(({ revision }) => revision)).toEqual([51, ...full.slice(0, -1).map(({ revision }) => revision)]);
  });
});

describe("useCreateTrainingJob", () => {
  it("refreshes the list that is shown", async () => {
    renderHook(() => useTrainingJobs({ page: 1, limit: 10, status: null }), { wrapper });
    await pass(1);
    await act(() => calls[0]!.answer({ jobs: [job("completed")], pagination: {} }));
    const { result } = renderHook(() => useCreateTrainingJob(), { wrapper });
    act(() => result.current.mutate({ request_id: "r" } as CreateJobRequest));
    await pass(1);
    await act(() => calls[1]!.answer(job("queued"), 201));
    await pass(1);
    expect(calls.map(({ url }) => new URL(url).pathname)).toEqual(["/api/jobs", "/api/jobs", "/api/jobs"]);
  });

  it("repeats a call that met a passing fault, with the same key", async () => {
    const { result } = renderHook(() => useCreateTrainingJob(), { wrapper });
    act(() => result.current.mutate({ request_id: "r" } as CreateJobRequest));
    await pass(1);
    await act(() => calls[0]!.answer({ error: "Away" }, 503));
    await pass(2000);
    expect(calls.map(({ body }) => body)).toEqual([{ request_id: "r" }, { request_id: "r" }]);
  });
});
