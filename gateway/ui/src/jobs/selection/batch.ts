import type { ApiError } from "@/api/errors";
import type { Job } from "@/api/types";

/** Concurrent calls: few enough to stay below a user's rate limit. */
const CONCURRENCY = 4;
/** Delays before the retries of a call that the server refused temporarily, which has changed nothing. */
const RETRY_DELAYS_MS = [500, 1000, 2000, 4000];
const REFUSED_FOR_NOW = ["RATE_LIMITED", "OVERLOADED"];

export type Failure = { readonly job: Job; readonly error: ApiError };

/**
 * Changes jobs, a few at a time, and continues after a failure. Reports each job that is done. After `signal` is aborted no further
 * call is made. Returns the failures, in the order of the jobs.
 */
export async function runBatch(
  jobs: readonly Job[],
  change: (job: Job) => Promise<unknown>,
  onDone: (job: Job, error: ApiError | null) => void,
  signal: AbortSignal,
): Promise<Failure[]> {
  const errors = new Map<string, ApiError>();
  const waiting = [...jobs];
  const worker = async () => {
    while (!signal.aborted) {
      const job = waiting.shift();
      if (!job) return;
      try {
        await withRetries(() => change(job));
        onDone(job, null);
      } catch (error) {
        errors.set(job.id, error as ApiError);
        onDone(job, error as ApiError);
      }
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, worker));
  return jobs.flatMap((job) => {
    const error = errors.get(job.id);
    return error ? [{ job, error }] : [];
  });
}

async function withRetries(call: () => Promise<unknown>): Promise<void> {
  for (const delayMs of RETRY_DELAYS_MS) {
    try {
      await call();
      return;
    } catch (error) {
      if (!REFUSED_FOR_NOW.includes((error as ApiError).reason)) throw error;
      await new Promise((resolve) => setTimeout(resolve, delayMs));
    }
  }
  await call();
}
