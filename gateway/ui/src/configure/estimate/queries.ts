import { keepPreviousData, useMutation, useQuery, type UseMutationResult, type UseQueryResult } from "@tanstack/react-query";

import { client, dataOf } from "@/api/client";
import type { ApiError } from "@/api/errors";
import type { Comparison, ComparisonRequest, EstimateRequest, Quote } from "@/api/types";
import { ESTIMATE_DELAY_MS } from "@/jobs/queries";
import { useDebouncedValue } from "@/hooks/debounced-value";

/** The job over GPU types, counts and presets; asked once for each pause, as the estimate is. Null asks nothing. */
export function useComparison(asked: ComparisonRequest | null): UseQueryResult<Comparison, ApiError> {
  const key = asked === null ? null : JSON.stringify(asked);
  const settled = useDebouncedValue(key, ESTIMATE_DELAY_MS);
  return useQuery<Comparison, ApiError>({
    queryKey: ["comparison", key],
    queryFn: ({ signal }) => {
      if (asked === null) throw new Error("asks nothing");
      return dataOf(client.POST("/api/jobs/compare", { body: asked, signal }));
    },
    enabled: key !== null && settled === key,
    placeholderData: keepPreviousData,
    staleTime: Infinity,
    gcTime: 0,
  });
}

/** Makes a price hold for a while. */
export function useCreateQuote(): UseMutationResult<Quote, ApiError, EstimateRequest> {
  return useMutation({
    mutationFn: (asked) => dataOf(client.POST("/api/quotes", { body: asked })),
  });
}
