import type { components } from "./schema";

type ErrorBody = components["schemas"]["ErrorBody"];

/** A call that did not succeed. `status` 0: no answer came at all. */
export class ApiError extends Error {
  readonly status: number;
  readonly reason: string;
  readonly requestId: string | null;
  /** Messages by field path; empty unless the input was at fault. */
  readonly fields: Readonly<Record<string, readonly string[]>>;
  readonly details: string;

  constructor(status: number, body: Partial<ErrorBody> | null) {
    super(body?.error ?? (status === 0 ? "The server cannot be reached" : `The server answered ${status}`));
    this.name = "ApiError";
    this.status = status;
    this.reason = body?.reason ?? "";
    this.requestId = body?.request_id ?? null;
    const details: unknown = body?.details;
    this.details = typeof details === "string" ? details : "";
    this.fields = details !== null && typeof details === "object" ? (details as Record<string, string[]>) : {};
  }

  /** Whether the same call may well succeed in a moment. */
  get isPassing(): boolean {
    return [0, 503, 504].includes(this.status) || ["OVERLOADED", "RATE_LIMITED"].includes(this.reason);
  }
}

/** What to tell a person: what went wrong, and what to do about it. */
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
      // The details say it all.
      return "";
    case "IDEMPOTENCY_KEY_REUSED":
      return "Look at your jobs: this one was already started.";
  }
  if (error.status === 0) return "Check your connection, then try again. Nothing you entered is lost.";
  if (error.isPassing) return "Try again in a moment. Nothing you entered is lost.";
  if (error.status >= 500) {
    return `This is our fault. Try again${error.requestId ? `, and quote ${error.requestId} if it stays` : ""}.`;
  }
  if (error.status === 400) return "Correct it and try again.";
  return "";
}
