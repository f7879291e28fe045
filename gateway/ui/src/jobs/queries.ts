import {
  keepPreviousData,
  useMutation,
  useQueries,
  useQuery,
  useQueryClient,
  type QueryClient,
  type UseMutationResult,
  type UseQueryOptions,
  type UseQueryResult,
} from "@tanstack/react-query";

import { client, dataOf } from "@/api/client";
import type { ApiError } from "@/api/errors";
import type {
  CreateJobRequest,
  GpuCapacity,
  Job,
  JobEvent,
  JobMetrics,
  JobsPage,
  JobsQuery,
  RetryJobRequest,
} from "@/api/types";
import { addToLog } from "./logs/queries";
import { useJobWatch } from "./watch/use-job-watch";

/** An active job is fetched this often: what is shown is at most 5 s old. */
export const ACTIVE_REFRESH_MS = 4000;
/** With a live watch, for the values that no event has: queue position and cost so far. */
const LIVE_REFRESH_MS = 15_000;
/** After an event, the metrics are fetched in this time: at most that often, however many events come. */
export const METRICS_REFRESH_MS = 1000;
/** As many points as a chart of this size can show. */
const CURVE_POINTS = 500;
const SHOWN_EVENTS = 50;
/** Fetches of a list whose job has an event each time. */
const MAX_FETCHES = 3;

/** What an event says of its job. */
type JobState = Pick<JobEvent, keyof Job & keyof JobEvent>;

/** Creates a job and refreshes the lists. A repetition with the same `request_id` creates no second job. */
export function useCreateTrainingJob(): UseMutationResult<Job, ApiError, CreateJobRequest> {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (body) => dataOf(client.POST("/api/jobs", { body })),
    // The request is idempotent, so a temporary error is retried.
    retry: (failures, error) => error.isTemporary && failures < 2,
    onSuccess: async (job) => {
      queries.setQueryData(["jobs", "one", job.id], job);
      await Promise.all([
        queries.invalidateQueries({ queryKey: ["jobs", "list"] }),
        queries.invalidateQueries({ queryKey: ["notifications"] }),
      ]);
    },
  });
}

/** A page of the user's jobs. It follows the job watch, and is fetched every few seconds without one. */
export function useTrainingJobs(query: JobsQuery): UseQueryResult<JobsPage, ApiError> {
  const queries = useQueryClient();
  const key = ["jobs", "list", query];
  const isLive = useJobWatch(true, (message) => {
    if (message.kind === "event" && message.event.type === "progress") {
      const { event } = message;
      queries.setQueryData<JobsPage>(key, (page) => page && { ...page, jobs: page.jobs.map((job) => withEvent(job, event)) });
    } else if (message.kind !== "ping") void queries.invalidateQueries({ queryKey: ["jobs", "list"] });
  });
  return useQuery<JobsPage, ApiError>({
    queryKey: key,
    queryFn: async ({ signal }) => {
      const page = await dataOf(client.GET("/api/jobs", { params: { query }, signal }));
      const current = queries.getQueryData<JobsPage>(key)?.jobs;
      return { ...page, jobs: page.jobs.map((job) => notOlderThan(current?.find(({ id }) => id === job.id), job)) };
    },
    placeholderData: keepPreviousData,
    refetchInterval: ({ state }) => {
      if (!isLive) return ACTIVE_REFRESH_MS;
      return state.data?.jobs.every((job) => job.is_final) ? false : LIVE_REFRESH_MS;
    },
  });
}

/** What there is of each GPU type. */
export function useCapacity(): UseQueryResult<GpuCapacity[], ApiError> {
  return useQuery<GpuCapacity[], ApiError>({
    queryKey: ["capacity"],
    queryFn: async ({ signal }) => (await dataOf(client.GET("/api/capacity", { signal }))).gpu_types,
    refetchInterval: LIVE_REFRESH_MS,
  });
}

/** Fetches a job. */
const jobQuery = (id: string): UseQueryOptions<Job, ApiError> => ({
  queryKey: ["jobs", "one", id],
  queryFn: async ({ signal, client: queries }) => {
    const job = await dataOf(client.GET("/api/jobs/{id}", { params: { path: { id } }, signal }));
    return notOlderThan(queries.getQueryData<Job>(["jobs", "one", id]), job);
  },
});

/** Fetches the metrics of a job. */
const metricsQuery = (id: string): UseQueryOptions<JobMetrics[], ApiError> => ({
  queryKey: ["jobs", "metrics", id],
  queryFn: ({ signal, client: queries }) =>
    withoutGap(queries, id, async () => {
      const params = { path: { id }, query: { max_points: CURVE_POINTS } };
      return (await dataOf(client.GET("/api/jobs/{id}/metrics", { params, signal }))).points;
    }),
});

/** Jobs by their ids, in that order. Those that are not final are fetched every few seconds. */
export function useJobsById(ids: readonly string[]): UseQueryResult<Job, ApiError>[] {
  return useQueries({
    queries: ids.map(
      (id): UseQueryOptions<Job, ApiError> => ({
        ...jobQuery(id),
        refetchInterval: ({ state }) => (state.data && !state.data.is_final ? ACTIVE_REFRESH_MS : false),
      }),
    ),
  });
}

/** The metrics of jobs, in their order. Those of jobs that are not final are fetched every few seconds. */
export function useMetricsOf(jobs: readonly Job[]): UseQueryResult<JobMetrics[], ApiError>[] {
  return useQueries({
    queries: jobs.map(({ id, is_final: isFinal }) => ({ ...metricsQuery(id), refetchInterval: isFinal ? false : ACTIVE_REFRESH_MS })),
  });
}

/** A job. Until it is final it follows the job watch, and is fetched every few seconds without one. */
export function useTrainingJob(id: string): UseQueryResult<Job, ApiError> {
  const queries = useQueryClient();
  const key = ["jobs", "one", id];
  const job = queries.getQueryData<Job>(key);
  const isLive = useJobWatch(job !== undefined && !job.is_final, (message) => {
    if (message.kind === "snapshot") {
      void queries.invalidateQueries({ queryKey: key });
      for (const part of ["events", "metrics", "log"]) void queries.invalidateQueries({ queryKey: ["jobs", part, id] });
    }
    if (message.kind !== "event" || message.event.job_id !== id) return;
    const { event } = message;
    addToLog(queries, event);
    queries.setQueryData<Job>(key, (current) => current && withEvent(current, event));
    queries.setQueryData<JobEvent[]>(["jobs", "events", id], (events) => events && withNewEvent(events, event));
    // An event's `current_metrics` are the latest of each name, also those of earlier steps: the points themselves are fetched.
    const isProgress = event.type === "progress";
    void queries.invalidateQueries({ queryKey: ["jobs", "metrics", id], refetchType: isProgress ? "none" : "active" });
    if (!isProgress) {
      // An event does not have everything that a transition changes: times, queue position, trainer.
      void queries.invalidateQueries({ queryKey: key });
      void queries.invalidateQueries({ queryKey: ["notifications"] });
    }
  });
  return useQuery<Job, ApiError>({
    ...jobQuery(id),
    refetchInterval: ({ state }) => {
      if (state.data?.is_final || (state.error && !state.error.isTemporary)) return false;
      return isLive ? LIVE_REFRESH_MS : ACTIVE_REFRESH_MS;
    },
  });
}

/** A job with the values of an event. An event that is not newer than the job changes nothing. */
export function withEvent(job: Job, event: JobEvent): Job {
  return event.job_id === job.id ? withState(job, event) : job;
}

/** A response with the state that an event brought while the response was under way. */
function notOlderThan(current: Job | undefined, response: Job): Job {
  return current ? withState(response, current) : response;
}

function withState(job: Job, event: JobState): Job {
  if (event.revision <= job.revision) return job;
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
    reforecast: event.reforecast ?? job.reforecast,
  };
}

/** Fetches again when the job had an event while the response was under way: the response may lack it. */
async function withoutGap<T>(queries: QueryClient, id: string, fetch: () => Promise<T>): Promise<T> {
  const revision = () => queries.getQueryData<Job>(["jobs", "one", id])?.revision;
  for (let fetches = 1; ; fetches += 1) {
    const before = revision();
    const data = await fetch();
    if (revision() === before || fetches === MAX_FETCHES) return data;
  }
}

/** Events, newest first, with a new one. A response may have it already, because it was fetched at the same moment. */
export function withNewEvent(events: JobEvent[], event: JobEvent): JobEvent[] {
  if (events.some(({ revision }) => revision === event.revision)) return events;
  return [event, ...events].slice(0, SHOWN_EVENTS);
}

/** The latest events of a job, newest first. */
export function useJobEvents(id: string, isLive: boolean): UseQueryResult<JobEvent[], ApiError> {
  return useQuery<JobEvent[], ApiError>({
    queryKey: ["jobs", "events", id],
    queryFn: ({ signal, client: queries }) =>
      withoutGap(queries, id, async () => {
        const params = { path: { id }, query: { limit: SHOWN_EVENTS } };
        return (await dataOf(client.GET("/api/jobs/{id}/event-log", { params, signal }))).events;
      }),
    refetchInterval: isLive ? LIVE_REFRESH_MS : false,
  });
}

/** The metrics of a job, by step. Those of an active job are fetched soon after an event, and now and then. */
export function useJobMetrics(id: string, isActive: boolean): UseQueryResult<JobMetrics[], ApiError> {
  return useQuery<JobMetrics[], ApiError>({
    ...metricsQuery(id),
    refetchInterval: ({ state }) => {
      if (!isActive) return false;
      return state.isInvalidated && state.status === "success" ? METRICS_REFRESH_MS : LIVE_REFRESH_MS;
    },
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

/** Replaces the name and the labels of a job. */
export function useUpdateTrainingJob(): UseMutationResult<Job, ApiError, { id: string; name: string | null; labels: string[] }> {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: ({ id, ...body }) => dataOf(client.PUT("/api/jobs/{id}", { params: { path: { id } }, body })),
    // The request is idempotent, so a temporary error is retried.
    retry: (failures, error) => error.isTemporary && failures < 2,
    onSuccess: async (job) => {
      queries.setQueryData(["jobs", "one", job.id], job);
      await queries.invalidateQueries({ queryKey: ["jobs", "list"] });
    },
  });
}

/** Creates a new job from a failed one. A repetition with the same `request_id` creates no second job. */
export function useRetryTrainingJob(): UseMutationResult<Job, ApiError, RetryJobRequest & { id: string }> {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: ({ id, ...body }) => dataOf(client.POST("/api/jobs/{id}/retry", { params: { path: { id } }, body })),
    onSuccess: async (job) => {
      queries.setQueryData(["jobs", "one", job.id], job);
      await queries.invalidateQueries({ queryKey: ["jobs", "list"] });
    },
  });
}
