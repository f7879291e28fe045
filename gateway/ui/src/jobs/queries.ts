import {
  keepPreviousData,
  useMutation,
  useQuery,
  useQueryClient,
  type UseMutationResult,
  type UseQueryResult,
} from "@tanstack/react-query";

import { client, dataOf } from "@/api/client";
import type { ApiError } from "@/api/errors";
import type {
  CreateJobRequest,
  Estimate,
  EstimateRequest,
  Job,
  JobEvent,
  JobMetrics,
  JobStatus,
  Pagination,
} from "@/api/types";
import { useLive } from "./events";
import { useDebouncedValue } from "@/hooks/debounced-value";

/** The estimate follows this long after the last change. */
export const ESTIMATE_DELAY_MS = 500;
/** An active job is asked for this often; the contract with people is "at least every 5 s". */
export const ACTIVE_REFRESH_MS = 4000;

/** With a live connection this often only, for what events do not tell: the place in the queue, and the clock. */
const LIVE_REFRESH_MS = 15_000;
/** As many points as a curve of this size can show. */
const CURVE_POINTS = 500;
const SHOWN_EVENTS = 50;

type EstimateState = {
  /** The latest estimate there is; of an earlier configuration while `isCurrent` is false. */
  estimate: Estimate | undefined;
  isCurrent: boolean;
  /** Waiting for the pause after a change, or for the answer. */
  isEstimating: boolean;
  error: ApiError | null;
  retry: () => void;
};

/**
 * The estimate of a configuration, asked once for each pause in its changes. Null asks nothing.
 * The configuration is the key: an answer to an older one has nowhere to show, and its request is aborted.
 */
export function useEstimateCost(asked: EstimateRequest | null): EstimateState {
  const key = asked === null ? null : JSON.stringify(asked);
  const settled = useDebouncedValue(key, ESTIMATE_DELAY_MS);
  const query = useQuery<Estimate, ApiError>({
    queryKey: ["estimate", key],
    queryFn: ({ signal }) => {
      if (asked === null) throw new Error("asks nothing");
      return dataOf(client.POST("/api/jobs/estimate", { body: asked, signal }));
    },
    enabled: key !== null && settled === key,
    placeholderData: keepPreviousData,
    staleTime: Infinity,
    gcTime: 0,
  });
  return {
    estimate: query.data,
    isCurrent: key !== null && query.isSuccess && !query.isPlaceholderData,
    isEstimating: key !== null && (settled !== key || query.isFetching),
    error: query.error,
    retry: () => void query.refetch(),
  };
}

/** Creates a job; safe to repeat with the same `request_id`. The lists refresh. */
export function useCreateTrainingJob(): UseMutationResult<Job, ApiError, CreateJobRequest> {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (body) => dataOf(client.POST("/api/jobs", { body })),
    // A repeat is safe, so a hiccup is no reason to bother anyone.
    retry: (failures, error) => error.isPassing && failures < 2,
    onSuccess: async (job) => {
      queries.setQueryData(["jobs", "one", job.id], job);
      await Promise.all([
        queries.invalidateQueries({ queryKey: ["jobs", "list"] }),
        queries.invalidateQueries({ queryKey: ["notifications"] }),
      ]);
    },
  });
}

export type JobsPage = { jobs: Job[]; pagination: Pagination };

/** A page of the caller's jobs, newest first: live, and asked for every few seconds where that is not to be had. */
export function useTrainingJobs(asked: {
  page: number;
  limit: number;
  status: JobStatus | null;
}): UseQueryResult<JobsPage, ApiError> {
  const queries = useQueryClient();
  const query = { page: asked.page, limit: asked.limit, ...(asked.status ? { status: asked.status } : {}) };
  const key = ["jobs", "list", query];
  const isLive = useLive("/api/jobs/events", (update) => {
    if (update.kind === "event" && update.event.type === "progress") {
      queries.setQueryData<JobsPage>(key, (held) => held && { ...held, jobs: held.jobs.map((job) => after(job, update.event)) });
    } else void queries.invalidateQueries({ queryKey: ["jobs", "list"] });
  });
  return useQuery<JobsPage, ApiError>({
    queryKey: key,
    queryFn: ({ signal }) => dataOf(client.GET("/api/jobs", { params: { query }, signal })),
    placeholderData: keepPreviousData,
    refetchInterval: ({ state }) => {
      if (state.data?.jobs.every((job) => job.is_final)) return false;
      return isLive ? LIVE_REFRESH_MS : ACTIVE_REFRESH_MS;
    },
  });
}

/** One job until it is in a final state: live, and asked for every few seconds where that is not to be had. */
export function useTrainingJob(id: string): UseQueryResult<Job, ApiError> {
  const queries = useQueryClient();
  const key = ["jobs", "one", id];
  const job = queries.getQueryData<Job>(key);
  const isLive = useLive(job && !job.is_final ? `/api/jobs/${id}/events` : null, (update) => {
    if (update.kind === "jobs") {
      queries.setQueryData<Job>(key, (held) => update.jobs[0] ?? held);
      void queries.invalidateQueries({ queryKey: ["jobs", "log", id] });
      void queries.invalidateQueries({ queryKey: ["jobs", "metrics", id] });
      return;
    }
    const { event } = update;
    queries.setQueryData<Job>(key, (held) => held && after(held, event));
    queries.setQueryData<JobEvent[]>(["jobs", "log", id], (held) => held && withEvent(held, event));
    queries.setQueryData<JobMetrics[]>(["jobs", "metrics", id], (held) => held && withPoint(held, event));
    if (event.type !== "progress") {
      // What else a transition changed: times, the place in the queue, the trainer.
      void queries.invalidateQueries({ queryKey: key });
      void queries.invalidateQueries({ queryKey: ["notifications"] });
    }
  });
  return useQuery<Job, ApiError>({
    queryKey: key,
    queryFn: ({ signal }) => dataOf(client.GET("/api/jobs/{id}", { params: { path: { id } }, signal })),
    refetchInterval: ({ state }) => {
      if (state.data?.is_final || (state.error && !state.error.isPassing)) return false;
      return isLive ? LIVE_REFRESH_MS : ACTIVE_REFRESH_MS;
    },
  });
}

/** A job after something happened to it. An event it has seen already changes nothing. */
export function after(job: Job, event: JobEvent): Job {
  if (event.job_id !== job.id || event.revision <= job.revision) return job;
  return {
    ...job,
    revision: event.revision,
    status: event.status,
    current_stage: event.current_stage,
    progress: event.progress,
    current_epoch: event.current_epoch,
    current_step: event.current_step,
    current_metrics: event.current_metrics,
    current_cost: event.current_cost,
    final_cost: event.final_cost,
    attempt: event.attempt,
    error_message: event.error_message,
    status_reason: event.status_reason,
    is_final: event.is_final,
    allowed_actions: event.allowed_actions,
    cost_limit_share: event.cost_limit_share,
    seconds_left: event.seconds_left,
  };
}

/** A log, newest first, with an event that may be in it already: the log was asked for as the event was on its way. */
export function withEvent(log: JobEvent[], event: JobEvent): JobEvent[] {
  if (log.some(({ revision }) => revision === event.revision)) return log;
  return [event, ...log].slice(0, SHOWN_EVENTS);
}

function withPoint(points: JobMetrics[], event: JobEvent): JobMetrics[] {
  const values = Object.fromEntries(
    Object.entries(event.current_metrics).filter((entry): entry is [string, number] => typeof entry[1] === "number"),
  );
  if (Object.keys(values).length === 0 || points.at(-1)?.step === event.current_step) return points;
  const before = points.filter(({ step }) => step < event.current_step);
  return [...before, { step: event.current_step, epoch: event.current_epoch, values, created_at: event.created_at }];
}

/** What happened to a job, newest first. */
export function useJobEvents(id: string, isLive: boolean): UseQueryResult<JobEvent[], ApiError> {
  return useQuery<JobEvent[], ApiError>({
    queryKey: ["jobs", "log", id],
    queryFn: async ({ signal }) => {
      const params = { path: { id }, query: { limit: SHOWN_EVENTS } };
      return (await dataOf(client.GET("/api/jobs/{id}/event-log", { params, signal }))).events;
    },
    refetchInterval: isLive ? LIVE_REFRESH_MS : false,
  });
}

/** What a job's trainers measured, by step. */
export function useJobMetrics(id: string, isLive: boolean): UseQueryResult<JobMetrics[], ApiError> {
  return useQuery<JobMetrics[], ApiError>({
    queryKey: ["jobs", "metrics", id],
    queryFn: async ({ signal }) => {
      const params = { path: { id }, query: { max_points: CURVE_POINTS } };
      return (await dataOf(client.GET("/api/jobs/{id}/metrics", { params, signal }))).points;
    },
    refetchInterval: isLive ? LIVE_REFRESH_MS : false,
  });
}

/** Cancels a job that is not final. */
export function useCancelTrainingJob(): UseMutationResult<Job, ApiError, string> {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (id) => dataOf(client.POST("/api/jobs/{id}/cancel", { params: { path: { id } } })),
    onSuccess: async (job) => {
      queries.setQueryData(["jobs", "one", job.id], job);
      await queries.invalidateQueries({ queryKey: ["jobs"] });
    },
  });
}

/** Creates a new job from a failed one; safe to repeat with the same `requestId`. */
export function useRetryTrainingJob(): UseMutationResult<Job, ApiError, { id: string; requestId: string }> {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: ({ id, requestId }) =>
      dataOf(client.POST("/api/jobs/{id}/retry", { params: { path: { id } }, body: { request_id: requestId } })),
    onSuccess: async (job) => {
      queries.setQueryData(["jobs", "one", job.id], job);
      await queries.invalidateQueries({ queryKey: ["jobs", "list"] });
    },
  });
}
