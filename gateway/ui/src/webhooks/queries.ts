import { keepPreviousData, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useRef } from "react";

import { client, dataOf } from "@/api/client";
import type { ApiError } from "@/api/errors";
import { serverNow } from "@/lib/clock";
import type { CreateWebhookRequest, WebhookDelivery } from "@/api/types";

/** Deliveries are fetched this often while one is pending. */
const PENDING_REFRESH_MS = 1500;
const SHOWN = 10;

export function useWebhooks() {
  return useQuery({
    queryKey: ["webhooks", "list"],
    queryFn: async ({ signal }) => (await dataOf(client.GET("/api/webhooks", { signal }))).webhooks,
  });
}

/** A page of the deliveries of a webhook, newest first. */
export function useDeliveries(id: string, page: number) {
  return useQuery({
    queryKey: ["webhooks", "deliveries", id, page],
    queryFn: ({ signal }) =>
      dataOf(client.GET("/api/webhooks/{id}/deliveries", { params: { path: { id }, query: { page, limit: SHOWN } }, signal })),
    placeholderData: keepPreviousData,
    refetchInterval: ({ state }) => (state.data?.deliveries.some(isDueSoon) ? PENDING_REFRESH_MS : false),
  });
}

/** Whether a delivery is being sent, or will be within the next minute. */
function isDueSoon({ status, next_attempt_at: next }: WebhookDelivery): boolean {
  return status === "sending" || (status === "pending" && (next === null || new Date(next).getTime() < serverNow() + 60_000));
}

export const useCreateWebhook = () =>
  useChange((body: CreateWebhookRequest) => dataOf(client.POST("/api/webhooks", { body })));

export const useUpdateWebhook = () =>
  useChange(({ id, ...body }: CreateWebhookRequest & { id: string; enabled: boolean }) =>
    dataOf(client.PUT("/api/webhooks/{id}", { params: { path: { id } }, body })),
  );

export const useDeleteWebhook = () =>
  useChange((id: string) => dataOf(client.DELETE("/api/webhooks/{id}", { params: { path: { id } } })));

export const useRotateSecret = () =>
  useChange((id: string) => dataOf(client.POST("/api/webhooks/{id}/secret", { params: { path: { id } } })));

export const useTestWebhook = () =>
  useChange((id: string) => dataOf(client.POST("/api/webhooks/{id}/test", { params: { path: { id } } })));

export const useRedeliver = () =>
  useChange(({ webhook_id: id, id: delivery }: WebhookDelivery) =>
    dataOf(
      client.POST("/api/webhooks/{id}/deliveries/{delivery_id}/redeliver", { params: { path: { id, delivery_id: delivery } } }),
    ),
  );

type Callbacks<R> = { onSuccess?: (result: R) => void; onError?: (error: ApiError) => void };

/** A mutation that refreshes the lists. It ignores calls while one is pending, such as the second click of a double click. */
function useChange<T, R>(run: (variables: T) => Promise<R>) {
  const queries = useQueryClient();
  const isPending = useRef(false);
  const mutation = useMutation<R, ApiError, T>({
    mutationFn: run,
    onSettled: () => {
      isPending.current = false;
      return queries.invalidateQueries({ queryKey: ["webhooks"] });
    },
  });
  return {
    ...mutation,
    mutate: (variables: T, callbacks: Callbacks<R> = {}) => {
      if (isPending.current) return;
      isPending.current = true;
      mutation.mutate(variables, callbacks);
    },
  };
}
