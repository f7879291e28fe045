import { useMutation, useQuery, useQueryClient, type QueryClient, type UseQueryResult } from "@tanstack/react-query";

import { client, dataOf } from "@/api/client";
import type { ApiError } from "@/api/errors";
import type { JobEvent } from "@/api/types";
import { linesOf, MAX_LINES, merge, withEarlier, withEvent, withNewer, type FetchEvents, type Log } from "./log";

const REFRESH_MS = 15_000;

const keyOf = (jobId: string) => ["jobs", "log", jobId];

/** The log of a job: its newest events at first. An active job's is brought up to date by the job watch and now and then. */
export function useJobLog(jobId: string, isActive: boolean): UseQueryResult<Log, ApiError> {
  const queries = useQueryClient();
  return useQuery<Log, ApiError>({
    queryKey: keyOf(jobId),
    queryFn: async ({ signal }) => {
      const known = queries.getQueryData<Log>(keyOf(jobId));
      const log = await withNewer(known, fetchEvents(jobId, signal));
      // Events may have come, and earlier ones may have been loaded, in the meantime.
      const current = queries.getQueryData<Log>(keyOf(jobId));
      return current ? merge(current, log.events, log.isComplete) : log;
    },
    refetchInterval: isActive ? REFRESH_MS : false,
  });
}

/** Loads a page of earlier events, or all of them. */
export function useEarlierLog(jobId: string) {
  const queries = useQueryClient();
  return useMutation<Log, ApiError, "page" | "all">({
    mutationFn: async (extent) => {
      let log = queries.getQueryData<Log>(keyOf(jobId)) ?? { events: [], isComplete: false };
      while (!log.isComplete && linesOf(log).length < MAX_LINES) {
        const earlier = await withEarlier(log, fetchEvents(jobId));
        log = merge(queries.getQueryData<Log>(keyOf(jobId)), earlier.events, earlier.isComplete);
        queries.setQueryData(keyOf(jobId), log);
        if (extent === "page") break;
      }
      return log;
    },
    retry: (failures, error) => error.isTemporary && failures < 2,
  });
}

/** Adds an event of the job watch to its job's log. */
export function addToLog(queries: QueryClient, event: JobEvent): void {
  const log = queries.getQueryData<Log>(keyOf(event.job_id));
  if (!log) return;
  const extended = withEvent(log, event);
  if (extended) queries.setQueryData(keyOf(event.job_id), extended);
  else void queries.invalidateQueries({ queryKey: keyOf(event.job_id) });
}

function fetchEvents(jobId: string, signal?: AbortSignal): FetchEvents {
  return (page, limit) => {
    const params = { path: { id: jobId }, query: { page, limit } };
    return dataOf(client.GET("/api/jobs/{id}/event-log", { params, ...(signal ? { signal } : {}) }));
  };
}
