import type { ApiKey, ApiKeyScope } from "@/api/types";
import type { Tone } from "@/components/ui/badge";

/** Scopes; one that the contract adds does not compile until it has a label here. */
export const SCOPES: Readonly<Record<ApiKeyScope, { label: string; detail: string }>> = {
  read: { label: "Read only", detail: "Lists, estimates, progress, downloads." },
  jobs: { label: "Read and write", detail: "Also creates, changes and cancels: jobs, datasets, webhooks." },
  worker: { label: "Trainer", detail: "Takes jobs and reports their progress." },
  sign_in: { label: "Sign-in", detail: "Not for keys." },
};

/** The scopes that a user can give. */
export const CHOICES: readonly ApiKeyScope[] = ["read", "jobs"];

/** A key's state at a time of the server, in milliseconds. */
export function keyState({ expires_at: expires }: ApiKey, now: number): { tone: Tone; text: string } {
  const left = new Date(expires).getTime() - now;
  if (left <= 0) return { tone: "bad", text: "Expired" };
  return left < 7 * 86_400_000 ? { tone: "warn", text: "Expires soon" } : { tone: "good", text: "Active" };
}
