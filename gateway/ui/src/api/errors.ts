import type { components } from "./schema";

type ErrorBody = components["schemas"]["ErrorBody"];

/** A request that failed. `status` is the HTTP status, or 0 without a response. */
export class ApiError extends Error {
  readonly status: number;
  readonly reason: string;
  readonly requestId: string | null;
  /** Messages by field path. Empty unless the input is invalid. */
  readonly fields: Readonly<Record<string, readonly string[]>>;
  readonly details: string;

  constructor(status: number, body: Partial<ErrorBody> | null) {
    super(body?.error ?? (status === 0 ? "The server cannot be reached" : `The server returned status ${status}`));
    this.name = "ApiError";
    this.status = status;
    this.reason = body?.reason ?? "";
    this.requestId = body?.request_id ?? null;
    const details: unknown = body?.details;
    this.details = typeof details === "string" ? details : "";
    this.fields = details !== null && typeof details === "object" ? (details as Record<string, string[]>) : {};
  }

  /** Whether the same request may succeed in a moment. */
  get isTemporary(): boolean {
    return [0, 503, 504].includes(this.status) || ["OVERLOADED", "RATE_LIMITED"].includes(this.reason);
  }
}

/** Describes an error for people: what went wrong, and what to do about it. */
export function explain(error: unknown): { title: string; description: string } {
  if (!(error instanceof ApiError)) {
    return { title: "Something went wrong on this page", description: "Reload it and try again." };
  }
  const fields = Object.entries(error.fields)
    .map(([field, messages]) => `${field}: ${messages.join(", ")}`)
    .join(" · ");
  return { title: error.message, description: [fields || error.details, advice(error)].filter(Boolean).join(" ") };
}

function advice(error: ApiError): string {
  switch (error.reason) {
    case "DATASET_NOT_FOUND":
      return "Choose another dataset.";
    case "DATASET_NOT_READY":
      return "Choose a dataset that is ready, or wait until this one is.";
    case "DATASET_IN_USE":
      // The details are complete.
      return "";
    case "IDEMPOTENCY_KEY_REUSED":
      return "Look at your jobs: this one was already started.";
  }
  if (error.status === 0) return "Check your connection, then try again. Nothing you entered is lost.";
  if (error.isTemporary) return "Try again in a moment. Nothing you entered is lost.";
  if (error.status >= 500) {
    return `The server failed. Try again${error.requestId ? `; if it fails again, report the request id ${error.requestId}` : ""}.`;
  }
  if (error.status === 400) return "Correct it and try again.";
  return "";
}
