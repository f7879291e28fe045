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
import type { CreateJobRequest, Estimate, EstimateRequest, Job, JobStatus, Pagination } from "@/api/types";
import { useSettled } from "./settled";

/** The estimate follows this long after the last change. */
export const ESTIMATE_DELAY_MS = 500;
/** An active job is asked for this often; the contract with people is "at least every 5 s". */
export const ACTIVE_REFRESH_MS = 4000;

const FINAL: ReadonlySet<JobStatus> = new Set<JobStatus>(["completed", "failed", "cancelled"]);

export function isFinal(job: Job): boolean {
  return FINAL.has(job.status);
}

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
  const settled = useSettled(key, ESTIMATE_DELAY_MS);
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

/** A page of the caller's jobs, newest first; refreshed while one of them is active. */
export function useTrainingJobs(asked: {
  page: number;
  limit: number;
  status: JobStatus | null;
}): UseQueryResult<JobsPage, ApiError> {
  const query = { page: asked.page, limit: asked.limit, ...(asked.status ? { status: asked.status } : {}) };
  return useQuery<JobsPage, ApiError>({
    queryKey: ["jobs", "list", query],
    queryFn: ({ signal }) => dataOf(client.GET("/api/jobs", { params: { query }, signal })),
    placeholderData: keepPreviousData,
    refetchInterval: ({ state }) => (state.data?.jobs.every(isFinal) ? false : ACTIVE_REFRESH_MS),
  });
}

/** One job, refreshed until it is in a final state. */
export function useTrainingJob(id: string): UseQueryResult<Job, ApiError> {
  return useQuery<Job, ApiError>({
    queryKey: ["jobs", "one", id],
    queryFn: ({ signal }) => dataOf(client.GET("/api/jobs/{id}", { params: { path: { id } }, signal })),
    refetchInterval: ({ state }) => {
      if (state.error && !state.error.isPassing) return false;
      return state.data && isFinal(state.data) ? false : ACTIVE_REFRESH_MS;
    },
  });
}
