import { useQuery } from "@tanstack/react-query";

import { client, dataOf } from "@/api/client";
import type { CreateApiKeyRequest } from "@/api/types";
import { useChange } from "@/hooks/change";

export function useApiKeys() {
  return useQuery({
    queryKey: ["keys"],
    queryFn: async ({ signal }) => (await dataOf(client.GET("/api/keys", { signal }))).api_keys,
  });
}

export const useCreateApiKey = () =>
  useChange("keys", (body: CreateApiKeyRequest) => dataOf(client.POST("/api/keys", { body })));

export const useRevokeApiKey = () =>
  useChange("keys", (id: string) => dataOf(client.DELETE("/api/keys/{id}", { params: { path: { id } } })));
