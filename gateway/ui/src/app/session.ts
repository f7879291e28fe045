import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";

import { client, dataOf } from "@/api/client";
import { jobWatch } from "@/jobs/watch/watch";

/** The signed-in user, and whether the server has a development issuer that signs in a demo user. */
export function useSession() {
  return useQuery({
    queryKey: ["session"],
    queryFn: ({ signal }) => dataOf(client.GET("/api/session", { signal })),
    staleTime: 60_000,
  });
}

export function useSignIn() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: () => dataOf(client.POST("/api/session")),
    onSuccess: () => {
      queries.clear();
      jobWatch.reconnect();
    },
  });
}

export function useSignOut() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: () => dataOf(client.DELETE("/api/session")),
    onSuccess: () => {
      queries.clear();
      jobWatch.reconnect();
    },
  });
}
