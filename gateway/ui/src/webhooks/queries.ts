import { keepPreviousData, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useRef } from "react";

import { client, dataOf } from "@/api/client";
import type { ApiError } from "@/api/errors";
import type { CreateWebhookRequest, WebhookDelivery } from "@/api/types";

/** While a delivery is on its way, its page is asked for this often. */
const ON_ITS_WAY_MS = 1500;
const SHOWN = 10;

export function useWebhooks() {
  return useQuery({
    queryKey: ["webhooks", "list"],
    queryFn: async ({ signal }) => (await dataOf(client.GET("/api/webhooks", { signal }))).webhooks,
  });
}

/** A page of what was sent to a webhook, newest first. */
export function useDeliveries(id: string, page: number) {
  return useQuery({
    queryKey: ["webhooks", "deliveries", id, page],
    queryFn: ({ signal }) =>
      dataOf(client.GET("/api/webhooks/{id}/deliveries", { params: { path: { id }, query: { page, limit: SHOWN } }, signal })),
    placeholderData: keepPreviousData,
    refetchInterval: ({ state }) => (state.data?.deliveries.some((one) => isSoon(one)) ? ON_ITS_WAY_MS : false),
  });
}

/** Whether something will happen to a delivery within the next minute. */
function isSoon({ status, next_attempt_at: next }: WebhookDelivery): boolean {
  return status === "sending" || (status === "pending" && (next === null || new Date(next).getTime() < Date.now() + 60_000));
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

type Told<R> = { onSuccess?: (result: R) => void; onError?: (error: ApiError) => void };

/** A change after which the lists are read again. Asked anew while it is under way, as by a double click, it does nothing. */
function useChange<T, R>(run: (asked: T) => Promise<R>) {
  const queries = useQueryClient();
  const isUnderWay = useRef(false);
  const mutation = useMutation<R, ApiError, T>({
    mutationFn: run,
    onSettled: () => {
      isUnderWay.current = false;
      return queries.invalidateQueries({ queryKey: ["webhooks"] });
    },
  });
  return {
    ...mutation,
    mutate: (asked: T, told: Told<R> = {}) => {
      if (isUnderWay.current) return;
      isUnderWay.current = true;
      mutation.mutate(asked, told);
    },
  };
}
