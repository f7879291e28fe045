import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";

import { client, dataOf } from "@/api/client";

/** Who is signed in, and whether this stack can sign a demo user in. */
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
    onSuccess: () => queries.clear(),
  });
}

export function useSignOut() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: () => dataOf(client.DELETE("/api/session")),
    onSuccess: () => queries.clear(),
  });
}
