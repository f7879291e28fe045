import { useQuery, type UseQueryResult } from "@tanstack/react-query";

import { client, dataOf } from "@/api/client";
import type { ApiError } from "@/api/errors";
import type { Accuracy } from "@/api/types";

/** How forecasts of finished jobs turned out. Months move slowly, so it is asked for once in a while. */
export function useEstimateAccuracy(): UseQueryResult<Accuracy, ApiError> {
  return useQuery<Accuracy, ApiError>({
    queryKey: ["accuracy"],
    queryFn: ({ signal }) => dataOf(client.GET("/api/estimates/accuracy", { signal })),
    staleTime: 300_000,
  });
}
