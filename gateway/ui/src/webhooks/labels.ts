import type { Webhook, WebhookDelivery, WebhookEventType } from "@/api/types";
import type { Tone } from "@/components/ui/badge";

/** Labels of the event types. A new type of the API does not compile without one. */
export const EVENTS: Readonly<Record<WebhookEventType, string>> = {
  job_queued: "Job queued",
  job_started: "Job started",
  job_completed: "Job completed",
  job_failed: "Job failed",
  job_cancelled: "Job cancelled",
  job_lease_lost: "Trainer lost",
  job_retried: "Job retried",
  job_cost_warning: "80 % of the cost limit used",
  job_cost_limit: "Cost limit reached",
  job_reforecast: "Slower than forecast, or will reach a limit",
  webhook_disabled: "Another webhook was disabled",
  webhook_test: "Test",
};

/** Event types that can be selected. Tests are always sent. */
export const CHOICES = (Object.keys(EVENTS) as WebhookEventType[]).filter((type) => type !== "webhook_test");

export const DELIVERY: Readonly<Record<WebhookDelivery["status"], { tone: Tone; text: string }>> = {
  pending: { tone: "warn", text: "Pending" },
  sending: { tone: "live", text: "Sending" },
  delivered: { tone: "good", text: "Delivered" },
  failed: { tone: "bad", text: "Failed" },
};

/** The state of a webhook as a badge. */
export function webhookState({ enabled, disabled_reason: reason, failing_since: failing }: Webhook): { tone: Tone; text: string } {
  if (enabled) return failing ? { tone: "warn", text: "Failing" } : { tone: "good", text: "On" };
  if (reason === "failing") return { tone: "bad", text: "Off: failed for days" };
  if (reason === "gone") return { tone: "bad", text: "Off: receiver gone" };
  return { tone: "plain", text: "Off" };
}
