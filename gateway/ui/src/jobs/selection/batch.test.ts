import { expect, it, vi } from "vitest";

import { ApiError } from "@/api/errors";
import type { Job } from "@/api/types";
import { runBatch } from "./batch";

const jobs = Array.from({ length: 10 }, (_, index) => ({ id: String(index) }) as Job);
const refused = new ApiError(409, { error: "The job is final" });

it("changes all jobs, at most four at once, and returns those that failed in their order", async () => {
  let running = 0;
  let most = 0;
  const done: string[] = [];
  const failures = await runBatch(
    jobs,
    async ({ id }) => {
      running += 1;
      most = Math.max(most, running);
      await Promise.resolve();
      running -= 1;
      if (id === "7" || id === "3") throw refused;
    },
    ({ id }) => done.push(id),
    new AbortController().signal,
  );
  expect(most).toBe(4);
  expect(done).toHaveLength(10);
  expect(failures).toEqual([jobs[3], jobs[7]].map((job) => ({ job, error: refused })));
});

it("begins no further job once it is stopped", async () => {
  const stop = new AbortController();
  const changed: string[] = [];
  await runBatch(
    jobs,
    ({ id }) => {
      changed.push(id);
      if (id === "1") stop.abort();
      return Promise.resolve();
    },
    () => undefined,
    stop.signal,
  );
  expect(changed).toEqual(["0", "1"]);
});

it("waits where the server refuses for now, and calls again", async () => {
  vi.useFakeTimers();
  let calls = 0;
  const change = () => {
    calls += 1;
    return calls < 3 ? Promise.reject(new ApiError(429, { reason: "RATE_LIMITED" })) : Promise.resolve();
  };
  const failures = runBatch(jobs.slice(0, 1), change, () => undefined, new AbortController().signal);
  await vi.advanceTimersByTimeAsync(1500);
  expect(await failures).toEqual([]);
  expect(calls).toBe(3);
  vi.useRealTimers();
});
