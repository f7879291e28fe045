import { toast } from "sonner";

import { explain } from "@/api/errors";

/** Tells in a toast what was not done, why, and what to do. */
export function showError(what: string, error: unknown): void {
  const { title, description } = explain(error);
  toast.error(`${what}: ${title}`, { description });
}
