import { FIELDS, type Configuration } from "./configuration";

/** What a person set for a dataset survives a reload: one draft for each dataset, the latest few. */
const DRAFTS = "pipeline.drafts";
/** Idempotency keys by configuration, so that a double click, a reload and a second tab make one job. */
const KEYS = "pipeline.request-ids";
const KEPT = 20;

const EMPTY = { baseModel: null, choices: {}, targetModules: [], provider: null };

type Entry<T> = readonly [name: string, value: T];

function read<T>(store: string): Entry<T>[] {
  try {
    const held: unknown = JSON.parse(localStorage.getItem(store) ?? "[]");
    return Array.isArray(held) ? (held as Entry<T>[]) : [];
  } catch {
    return [];
  }
}

function write(store: string, name: string, value: unknown): void {
  const others = read<unknown>(store).filter(([other]) => other !== name);
  const entries = value === undefined ? others : [[name, value], ...others].slice(0, KEPT);
  try {
    localStorage.setItem(store, JSON.stringify(entries));
  } catch {
    // Storage is full or switched off: the form works, it only forgets.
  }
}

export function draftOf(datasetId: string): Configuration | null {
  const held = read<Configuration>(DRAFTS).find(([name]) => name === datasetId)?.[1];
  // One of an older page lacks what came since.
  return held ? { ...EMPTY, ...held, values: numbers(held.values) } : null;
}

/** JSON has no NaN: text that was no number comes back as one, to be explained again. */
function numbers(values: Configuration["values"]): Configuration["values"] {
  const read = (value: unknown) => (typeof value === "number" ? value : typeof value === "string" ? Number.NaN : null);
  return Object.fromEntries(FIELDS.map((field) => [field, read(values[field])])) as Configuration["values"];
}

export function keepDraft(datasetId: string, configuration: Configuration): void {
  const values = Object.fromEntries(
    Object.entries(configuration.values).map(([field, value]) => [field, Number.isNaN(value) ? "NaN" : value]),
  );
  write(DRAFTS, datasetId, { ...configuration, values });
}

export function dropDraft(datasetId: string): void {
  write(DRAFTS, datasetId, undefined);
}

/** The idempotency key of a configuration: the same one until a job was made with it. */
export function requestIdOf(fingerprint: string): string {
  const held = read<string>(KEYS).find(([name]) => name === fingerprint)?.[1];
  if (held) return held;
  const made = crypto.randomUUID();
  write(KEYS, fingerprint, made);
  return made;
}

export function dropRequestId(fingerprint: string): void {
  write(KEYS, fingerprint, undefined);
}
