import { toast } from "sonner";

import { explain } from "@/api/errors";

/** Shows an error as a toast: what failed, why, and what to do. */
export function showError(failure: string, error: unknown): void {
  const { title, description } = explain(error);
  toast.error(`${failure}: ${title}`, { description });
}
