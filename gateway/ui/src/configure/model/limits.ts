import type { Catalogue } from "@/api/types";
import { scientific } from "@/lib/format";
import { FRACTIONAL_FIELDS, LIMIT_FIELDS, OPTIONAL_FIELDS, type Field } from "./configuration";

type Limit = { min?: number | null; max?: number | null; min_exclusive?: boolean; max_exclusive?: boolean };

/** Describes what is wrong with a value and which values are valid. Returns null for a valid one. */
export function fieldError(catalogue: Catalogue, field: Field, value: number | null): string | null {
  if (value === null) return OPTIONAL_FIELDS.has(field) ? null : `Enter a number${range(catalogue, field)}.`;
  if (Number.isNaN(value)) return `This is not a number. Enter one${range(catalogue, field)}.`;
  const whole = !FRACTIONAL_FIELDS.has(field);
  if (whole && !Number.isInteger(value)) return `Enter a whole number${range(catalogue, field)}.`;
  const limit = limitOf(catalogue, field);
  if (!limit) return null;
  const low = limit.min != null && (value < limit.min || (limit.min_exclusive && value === limit.min));
  const high = limit.max != null && (value > limit.max || (limit.max_exclusive && value === limit.max));
  if (!low && !high) return null;
  return `${formatValue(field, value)} is too ${low ? "low" : "high"}. Enter a number${range(catalogue, field)}.`;
}

function limitOf(catalogue: Catalogue, field: Field): Limit | undefined {
  // The catalogue has no entry for the limits of a job: they are positive.
  if ((LIMIT_FIELDS as readonly Field[]).includes(field)) return { min: 0, min_exclusive: true };
  return catalogue.limits.find((one) => one.field === field);
}

function range(catalogue: Catalogue, field: Field): string {
  const limit = limitOf(catalogue, field);
  if (limit?.min == null) return "";
  const from = limit.min_exclusive ? `above ${formatValue(field, limit.min)}` : `from ${formatValue(field, limit.min)}`;
  if (limit.max == null) return ` ${from}`;
  return limit.max_exclusive
    ? ` ${from} to below ${formatValue(field, limit.max)}`
    : ` ${from} to ${formatValue(field, limit.max)}`;
}

/** Formats a value for the box beside its slider. */
export function formatValue(field: Field, value: number | null): string {
  if (value === null || Number.isNaN(value)) return "";
  return field === "hyperparameters.learning_rate" ? scientific(value) : String(value);
}

/** Parses typed text. Returns null for empty text and NaN for text that is not a number. */
export function parseNumber(text: string): number | null {
  const trimmed = text.trim();
  if (trimmed === "") return null;
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(trimmed) ? Number(trimmed) : Number.NaN;
}
