import { useQuery } from "@tanstack/react-query";

import { client, dataOf } from "@/api/client";
import type { ApiError } from "@/api/errors";
import type { Catalogue } from "@/api/types";

/** GPU types, presets, limits and slider ranges: nothing of them is in the page's own code. */
export function useCatalogue() {
  return useQuery<Catalogue, ApiError>({
    queryKey: ["catalogue"],
    queryFn: ({ signal }) => dataOf(client.GET("/api/catalogue", { signal })),
    staleTime: 60_000,
  });
}
