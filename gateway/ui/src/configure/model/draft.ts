import { randomId } from "@/lib/random-id";
import { FIELDS, type Configuration } from "./configuration";

/** Drafts by dataset, so that a configuration survives a reload. The latest few are kept. */
const DRAFTS = "pipeline.drafts";
/** Idempotency keys by configuration, so that a double click, a reload and a second tab create one job. */
const KEYS = "pipeline.request-ids";
const BASE_MODEL = "pipeline.base-model";
const MAX_ENTRIES = 20;

/** What a draft of an older version may lack. Fields that every version had are left out. */
const DEFAULTS: Omit<Configuration, "datasetId" | "presetId" | "basedOn" | "gpuType" | "values"> = { baseModel: null, choices: {}, targetModules: [], validation: null, provider: null, name: "", labels: [] };

type Entry<T> = readonly [name: string, value: T];

function read<T>(store: string): Entry<T>[] {
  try {
    const stored: unknown = JSON.parse(localStorage.getItem(store) ?? "[]");
    return Array.isArray(stored) ? (stored as Entry<T>[]) : [];
  } catch {
    return [];
  }
}

function write(store: string, name: string, value: unknown): void {
  const others = read<unknown>(store).filter(([other]) => other !== name);
  const entries = value === undefined ? others : [[name, value], ...others].slice(0, MAX_ENTRIES);
  try {
    localStorage.setItem(store, JSON.stringify(entries));
  } catch {
    // Storage is full or disabled: the form works without drafts.
  }
}

/** Returns the draft of a dataset, or null. */
export function getDraft(datasetId: string): Configuration | null {
  const draft = read<Configuration>(DRAFTS).find(([name]) => name === datasetId)?.[1];
  return draft ? { ...DEFAULTS, ...draft, values: parseValues(draft.values) } : null;
}

/** JSON has no NaN: text that is not a number is stored as text and read as NaN. */
function parseValues(values: Configuration["values"]): Configuration["values"] {
  const parse = (value: unknown) => (typeof value === "number" ? value : typeof value === "string" ? Number.NaN : null);
  return Object.fromEntries(FIELDS.map((field) => [field, parse(values[field])])) as Configuration["values"];
}

export function saveDraft(datasetId: string, configuration: Configuration): void {
  const values = Object.fromEntries(
    Object.entries(configuration.values).map(([field, value]) => [field, Number.isNaN(value) ? "NaN" : value]),
  );
  write(DRAFTS, datasetId, { ...configuration, values });
}

export function deleteDraft(datasetId: string): void {
  write(DRAFTS, datasetId, undefined);
}

/** Returns the idempotency key of a configuration. It is the same until `deleteRequestId`. */
export function getRequestId(fingerprint: string): string {
  const stored = read<string>(KEYS).find(([name]) => name === fingerprint)?.[1];
  if (stored) return stored;
  const id = randomId();
  write(KEYS, fingerprint, id);
  return id;
}

export function deleteRequestId(fingerprint: string): void {
  write(KEYS, fingerprint, undefined);
}

/** The base model that was selected last; null: none. */
export function lastBaseModel(): string | null {
  try {
    return localStorage.getItem(BASE_MODEL);
  } catch {
    return null;
  }
}

export function rememberBaseModel(id: string | null): void {
  try {
    if (id === null) localStorage.removeItem(BASE_MODEL);
    else localStorage.setItem(BASE_MODEL, id);
  } catch {
    // Storage is full or disabled: the next form starts without a base model.
  }
}
