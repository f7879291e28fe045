import type { Webhook, WebhookDelivery, WebhookEventType } from "@/api/types";
import type { Tone } from "@/components/ui/badge";

/** Events as people call them; one that the contract adds does not compile until it has a name here. */
export const EVENTS: Readonly<Record<WebhookEventType, string>> = {
  job_queued: "Job queued",
  job_started: "Job started",
  job_completed: "Job completed",
  job_failed: "Job failed",
  job_cancelled: "Job cancelled",
  job_lease_lost: "Job lost its trainer",
  job_retried: "Job tried again",
  job_cost_warning: "80 % of the cost limit used",
  job_cost_limit: "Cost limit reached",
  webhook_disabled: "Another webhook was disabled",
  webhook_test: "Test",
};

/** What can be chosen. A test is sent whatever was. */
export const CHOICES = (Object.keys(EVENTS) as WebhookEventType[]).filter((type) => type !== "webhook_test");

export const DELIVERY: Readonly<Record<WebhookDelivery["status"], { tone: Tone; text: string }>> = {
  pending: { tone: "warn", text: "Waiting" },
  sending: { tone: "live", text: "Sending" },
  delivered: { tone: "good", text: "Delivered" },
  failed: { tone: "bad", text: "Failed" },
};

export function standing({ enabled, disabled_reason: reason, failing_since: failing }: Webhook): { tone: Tone; text: string } {
  if (enabled) return failing ? { tone: "warn", text: "Failing" } : { tone: "good", text: "On" };
  if (reason === "failing") return { tone: "bad", text: "Off: it failed for days" };
  if (reason === "gone") return { tone: "bad", text: "Off: its receiver is gone" };
  return { tone: "plain", text: "Off" };
}
