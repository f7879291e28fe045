import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";

import { client, dataOf } from "@/api/client";

const REFRESH_MS = 15_000;
const SHOWN = 10;

/** The latest notifications, and the number of unread ones. */
export function useNotifications(unreadOnly: boolean) {
  return useQuery({
    queryKey: ["notifications", { unreadOnly }],
    queryFn: ({ signal }) =>
      dataOf(
        client.GET("/api/notifications", {
          params: { query: { limit: SHOWN, ...(unreadOnly ? { unread: true } : {}) } },
          signal,
        }),
      ),
    refetchInterval: REFRESH_MS,
  });
}

export function useMarkRead() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: async (ids: string[]) => {
      for (const id of ids) await dataOf(client.POST("/api/notifications/{id}/read", { params: { path: { id } } }));
    },
    onSettled: () => queries.invalidateQueries({ queryKey: ["notifications"] }),
  });
}
