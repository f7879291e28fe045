import { keepPreviousData, useQuery } from "@tanstack/react-query";

import { client, dataOf } from "@/api/client";
import { useChange } from "@/hooks/change";
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
  useChange("webhooks", (body: CreateWebhookRequest) => dataOf(client.POST("/api/webhooks", { body })));

export const useUpdateWebhook = () =>
  useChange("webhooks", ({ id, ...body }: CreateWebhookRequest & { id: string; enabled: boolean }) =>
    dataOf(client.PUT("/api/webhooks/{id}", { params: { path: { id } }, body })),
  );

export const useDeleteWebhook = () =>
  useChange("webhooks", (id: string) => dataOf(client.DELETE("/api/webhooks/{id}", { params: { path: { id } } })));

export const useRotateSecret = () =>
  useChange("webhooks", (id: string) => dataOf(client.POST("/api/webhooks/{id}/secret", { params: { path: { id } } })));

export const useTestWebhook = () =>
  useChange("webhooks", (id: string) => dataOf(client.POST("/api/webhooks/{id}/test", { params: { path: { id } } })));

export const useRedeliver = () =>
  useChange("webhooks", ({ webhook_id: id, id: delivery }: WebhookDelivery) =>
    dataOf(
      client.POST("/api/webhooks/{id}/deliveries/{delivery_id}/redeliver", { params: { path: { id, delivery_id: delivery } } }),
    ),
  );
