import type { Job } from "@/api/types";

/** Limits of the API: labels of a job, characters of a label and of a name. */
export const MAX_LABELS = 20;
export const MAX_LABEL_LENGTH = 64;
export const MAX_NAME_LENGTH = 200;

/** Whether the API takes a label. It is one or more characters without a comma and without a space at either end. */
export function isLabel(text: string): boolean {
  return text === text.trim() && text.length > 0 && Array.from(text).length <= MAX_LABEL_LENGTH && !CONTROL_OR_COMMA.test(text);
}

// eslint-disable-next-line no-control-regex
const CONTROL_OR_COMMA = /[,\x00-\x1f]/;

/** Adds the labels of a comma-separated text, without empty, too long or repeated ones. */
export function withLabels(labels: readonly string[], text: string): readonly string[] {
  const added = text.split(",").map((one) => one.trim()).filter(isLabel);
  return [...new Set([...labels, ...added])].slice(0, MAX_LABELS);
}

/** A job's title: its name, else its dataset's. */
export function jobTitle(job: Pick<Job, "name" | "dataset">): string {
  return job.name ?? job.dataset.name;
}
