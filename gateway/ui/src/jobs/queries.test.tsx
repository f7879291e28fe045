import { act, renderHook } from "@testing-library/react";
import { beforeEach, describe, expect, it, vi } from "vitest";

import type { CreateJobRequest, Job, JobEvent } from "@/api/types";
import { calls, pass, installFakeNetwork, wrapper } from "@/testing/network";
import {
  ACTIVE_REFRESH_MS,
  METRICS_REFRESH_MS,
  useCreateTrainingJob,
  useJobEvents,
  useJobMetrics,
  useTrainingJob,
  useTrainingJobs,
  withEvent,
  withNewEvent,
} from "./queries";

installFakeNetwork();

const FINAL: readonly Job["status"][] = ["completed", "failed", "cancelled"];
const job = (status: Job["status"]) => ({ id: "j", status, is_final: FINAL.includes(status), revision: 3 }) as Job;

describe("useTrainingJob", () => {
  it.each(["completed", "failed", "cancelled"] as const)("stops polling once the job is %s", async (status) => {
    renderHook(() => useTrainingJob("j"), { wrapper });
    await pass(1);
    await act(() => calls[0]!.respond(job("running")));
    await pass(ACTIVE_REFRESH_MS + 10);
    expect(calls).toHaveLength(2);
    await act(() => calls[1]!.respond(job(status)));
    await pass(60_000);
    expect(calls).toHaveLength(2);
  });

  it("polls at least every five seconds while the job is active", async () => {
    renderHook(() => useTrainingJob("j"), { wrapper });
    await pass(1);
    await act(() => calls[0]!.respond(job("queued")));
    await pass(5000);
    expect(calls.length).toBeGreaterThanOrEqual(2);
  });

  it("does not poll a job that was not found", async () => {
    renderHook(() => useTrainingJob("j"), { wrapper });
    await pass(1);
    await act(() => calls[0]!.respond({ error: "Job not found or access denied" }, 404));
    await pass(60_000);
    expect(calls).toHaveLength(1);
  });
});

describe("a watched job", () => {
  let send: (name: "snapshot" | "event", data: object) => void;
  const progress = { job_id: "j", revision: 4, type: "progress", progress: 50 };

  beforeEach(() => {
    class FakeEventSource extends EventTarget {
      constructor() {
        super();
        send = (name, data) => this.dispatchEvent(new MessageEvent(name, { data: JSON.stringify(data) }));
      }
      close() {
        send = () => undefined;
      }
    }
    vi.stubGlobal("EventSource", FakeEventSource);
  });

  it("keeps an event that is newer than a response under way", async () => {
    const { result } = renderHook(() => useTrainingJob("j"), { wrapper });
    await pass(1);
    await act(() => calls[0]!.respond(job("running")));
    act(() => send("snapshot", { jobs: [] }));
    await pass(1);
    act(() => send("event", progress));
    await act(() => calls[1]!.respond({ ...job("running"), queue_position: 7 }));
    expect(result.current.data).toMatchObject({ revision: 4, progress: 50, queue_position: 7 });
  });

  it("keeps such an event in a list", async () => {
    const { result } = renderHook(() => useTrainingJobs({ page: 1, limit: 10 }), { wrapper });
    await pass(1);
    await act(() => calls[0]!.respond({ jobs: [job("running")], pagination: {} }));
    act(() => send("snapshot", { jobs: [] }));
    await pass(1);
    act(() => send("event", progress));
    await act(() => calls[1]!.respond({ jobs: [job("running")], pagination: {} }));
    expect(result.current.data?.jobs).toMatchObject([{ revision: 4, progress: 50 }]);
  });

  it("fetches its events again when a response lacks one", async () => {
    const { result } = renderHook(() => [useTrainingJob("j"), useJobEvents("j", false)] as const, { wrapper });
    await pass(1);
    const log = calls.find(({ url }) => url.includes("event-log"))!;
    await act(() => calls.find((call) => call !== log)!.respond(job("running")));
    act(() => send("snapshot", { jobs: [] }));
    act(() => send("event", progress));
    await act(() => log.respond({ events: [{ revision: 3 }] }));
    await act(() => calls.at(-1)!.respond({ events: [{ revision: 4 }, { revision: 3 }] }));
    expect(result.current[1].data).toEqual([{ revision: 4 }, { revision: 3 }]);
  });

  describe("and its metrics", () => {
    const old = [{ step: 10, values: { loss: 0.5, eval_loss: 0.6 } }];
    const fetches = () => calls.filter(({ url }) => url.includes("metrics"));

    /** Renders a running job with a live watch and one point. */
    async function renderMetrics() {
      const { result } = renderHook(
        () => {
          const { data } = useTrainingJob("j");
          return useJobMetrics("j", !data?.is_final);
        },
        { wrapper },
      );
      await pass(1);
      await act(() => fetches()[0]!.respond({ points: [] }));
      await act(() => calls[0]!.respond(job("running")));
      act(() => send("snapshot", { jobs: [] }));
      await pass(1);
      await act(() => fetches().at(-1)!.respond({ points: old }));
      const before = fetches().length;
      return { result, fetchesSince: () => fetches().slice(before) };
    }

    it("has each metric at the steps that a report had it for, and fetches once for the events of a second", async () => {
      const { result, fetchesSince } = await renderMetrics();
      for (const revision of [4, 5]) {
        act(() => send("event", { ...progress, revision, current_step: revision + 7, current_metrics: { loss: 0.4, eval_loss: 0.6 } }));
      }
      await pass(METRICS_REFRESH_MS);
      expect(result.current.data).toEqual(old);
      expect(fetchesSince()).toHaveLength(1);
      const points = [...old, { step: 11, values: { loss: 0.45 } }, { step: 12, values: { loss: 0.4 } }];
      await act(() => fetchesSince()[0]!.respond({ points }));
      await pass(2 * METRICS_REFRESH_MS);
      expect(result.current.data).toEqual(points);
      expect(fetchesSince()).toHaveLength(1);
    });

    it("has the last report's once the job has ended", async () => {
      const { result, fetchesSince } = await renderMetrics();
      act(() => send("event", { ...progress, type: "completed", is_final: true }));
      await pass(1);
      const points = [...old, { step: 12, values: { loss: 0.4 } }];
      await act(() => fetchesSince()[0]!.respond({ points }));
      expect(result.current.data).toEqual(points);
    });
  });
});

describe("withEvent", () => {
  const event = (revision: number, job_id = "j") => ({ job_id, revision, status: "running", progress: 50 }) as JobEvent;

  it("applies a newer event", () => {
    expect(withEvent(job("queued"), event(4))).toMatchObject({ revision: 4, status: "running", progress: 50 });
  });

  it("ignores older events and those of other jobs", () => {
    expect(withEvent(job("queued"), event(3))).toEqual(job("queued"));
    expect(withEvent(job("queued"), event(4, "other"))).toEqual(job("queued"));
  });
});

describe("withNewEvent", () => {
  const event = (revision: number) => ({ job_id: "j", revision }) as JobEvent;

  it("puts a new event first", () => {
    expect(withNewEvent([event(2), event(1)], event(3))).toEqual([event(3), event(2), event(1)]);
  });

  it("adds no event twice", () => {
    expect(withNewEvent([event(3), event(2)], event(3))).toEqual([event(3), event(2)]);
  });

  it("keeps the latest 50 events", () => {
    const full = Array.from({ length: 50 }, (_, index) => event(50 - index));
    expect(withNewEvent(full, event(51)).map(({ revision }) => revision)).toEqual([51, ...full.slice(0, -1).map(({ revision }) => revision)]);
  });
});

describe("useCreateTrainingJob", () => {
  it("refreshes the list", async () => {
    renderHook(() => useTrainingJobs({ page: 1, limit: 10 }), { wrapper });
    await pass(1);
    await act(() => calls[0]!.respond({ jobs: [job("completed")], pagination: {} }));
    const { result } = renderHook(() => useCreateTrainingJob(), { wrapper });
    act(() => result.current.mutate({ request_id: "r" } as CreateJobRequest));
    await pass(1);
    await act(() => calls[1]!.respond(job("queued"), 201));
    await pass(1);
    expect(calls.map(({ url }) => new URL(url).pathname)).toEqual(["/api/jobs", "/api/jobs", "/api/jobs"]);
  });

  it("retries a temporary error with the same key", async () => {
    const { result } = renderHook(() => useCreateTrainingJob(), { wrapper });
    act(() => result.current.mutate({ request_id: "r" } as CreateJobRequest));
    await pass(1);
    await act(() => calls[0]!.respond({ error: "Away" }, 503));
    await pass(2000);
    expect(calls.map(({ body }) => body)).toEqual([{ request_id: "r" }, { request_id: "r" }]);
  });
});
