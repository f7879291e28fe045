import { keepPreviousData, useMutation, useQuery, type UseMutationResult, type UseQueryResult } from "@tanstack/react-query";

import { client, dataOf } from "@/api/client";
import type { ApiError } from "@/api/errors";
import type { Accuracy, Comparison, ComparisonRequest, Estimate, EstimateRequest, Quote } from "@/api/types";
import { useDebouncedValue } from "@/hooks/debounced-value";

/** The estimate is requested this long after the last change. */
export const ESTIMATE_DELAY_MS = 500;

type EstimateState = {
  /** The latest estimate. While `isCurrent` is false it belongs to an earlier configuration. */
  estimate: Estimate | undefined;
  isCurrent: boolean;
  /** Whether a request is pending or about to be sent. */
  isEstimating: boolean;
  error: ApiError | null;
  retry: () => void;
};

/**
 * Estimates a configuration, once per pause in its changes. A null request sends nothing.
 * The request is the query's key: the response to an older request is never shown, and that request is aborted.
 */
export function useEstimateCost(request: EstimateRequest | null): EstimateState {
  const key = request === null ? null : JSON.stringify(request);
  const settledKey = useDebouncedValue(key, ESTIMATE_DELAY_MS);
  const query = useQuery<Estimate, ApiError>({
    queryKey: ["estimate", key],
    queryFn: ({ signal }) => {
      if (request === null) throw new Error("The query is disabled without a request");
      return dataOf(client.POST("/api/jobs/estimate", { body: request, signal }));
    },
    enabled: key !== null && settledKey === key,
    placeholderData: keepPreviousData,
    staleTime: Infinity,
    gcTime: 0,
  });
  return {
    estimate: query.data,
    isCurrent: key !== null && query.isSuccess && !query.isPlaceholderData,
    isEstimating: key !== null && (settledKey !== key || query.isFetching),
    error: query.error,
    retry: () => void query.refetch(),
  };
}

/** Compares a job over GPU types, counts and presets, once per pause in its changes. A null request sends nothing. */
export function useComparison(request: ComparisonRequest | null): UseQueryResult<Comparison, ApiError> {
  const key = request === null ? null : JSON.stringify(request);
  const settledKey = useDebouncedValue(key, ESTIMATE_DELAY_MS);
  return useQuery<Comparison, ApiError>({
    queryKey: ["comparison", key],
    queryFn: ({ signal }) => {
      if (request === null) throw new Error("The query is disabled without a request");
      return dataOf(client.POST("/api/jobs/compare", { body: request, signal }));
    },
    enabled: key !== null && settledKey === key,
    placeholderData: keepPreviousData,
    staleTime: Infinity,
    gcTime: 0,
  });
}

/** Creates a quote, which locks a price for some hours. */
export function useCreateQuote(): UseMutationResult<Quote, ApiError, EstimateRequest> {
  return useMutation({
    mutationFn: (request) => dataOf(client.POST("/api/quotes", { body: request })),
  });
}

/** How accurate the forecasts of finished jobs were. It changes slowly, so it is fetched at most every five minutes. */
export function useEstimateAccuracy(): UseQueryResult<Accuracy, ApiError> {
  return useQuery<Accuracy, ApiError>({
    queryKey: ["accuracy"],
    queryFn: ({ signal }) => dataOf(client.GET("/api/estimates/accuracy", { signal })),
    staleTime: 300_000,
  });
}
