import type { JobEvent, Pagination } from "@/api/types";

/** The fields of an event that a log uses. */
export type LogEvent = Pick<JobEvent, "revision" | "created_at" | "log_lines">;

/** A job's newest events without a gap, newest first. `isComplete`: no earlier events exist. */
export type Log = { readonly events: readonly LogEvent[]; readonly isComplete: boolean };

export type LogLine = { readonly id: string; readonly time: string; readonly text: string };

/** Returns a page of a job's events, newest first. */
export type FetchEvents = (page: number, limit: number) => Promise<{ events: JobEvent[]; pagination: Pagination }>;

/** Page sizes: a page with more than 2 MiB of lines omits some, and is fetched again in smaller pages. */
const LIMITS = [100, 10, 2] as const;
const OMITTED = /^\(\d+ lines are too long for this page; /;
/** Lines that are kept in memory. */
export const MAX_LINES = 500_000;

/** Returns a log with the events that came since; without one, the newest page. */
export async function withNewer(log: Log | undefined, fetch: FetchEvents): Promise<Log> {
  const newest = log?.events[0]?.revision ?? 0;
  let merged = log;
  for (let page = 1; ; page += 1) {
    const { events, isLast } = await fetchPage(fetch, page);
    merged = merge(merged, events, isLast);
    if (newest === 0 || isLast || events.some(({ revision }) => revision <= newest)) return merged;
  }
}

/** Returns a log with one more page of earlier events. */
export async function withEarlier(log: Log, fetch: FetchEvents): Promise<Log> {
  const oldest = log.events.at(-1)?.revision ?? 0;
  // New events shift the pages: this page may have only events that are known already.
  for (let page = Math.floor(log.events.length / LIMITS[0]) + 1; ; page += 1) {
    const { events, isLast } = await fetchPage(fetch, page);
    if (isLast || events.some(({ revision }) => revision < oldest)) return merge(log, events, isLast);
  }
}

/** Returns a log with further events; those that it has already are ignored. */
export function merge(log: Log | undefined, events: readonly LogEvent[], isComplete: boolean): Log {
  const byRevision = new Map([...(log?.events ?? []), ...events].map((event) => [event.revision, event]));
  const merged = [...byRevision.values()].sort((first, second) => second.revision - first.revision);
  return { events: merged, isComplete: isComplete || (log?.isComplete ?? false) };
}

/** Returns a log with a new event. `null`: events are missing before it and have to be fetched. */
export function withEvent(log: Log, event: LogEvent): Log | null {
  const newest = log.events[0]?.revision ?? 0;
  if (event.revision <= newest) return log;
  return event.revision === newest + 1 ? { ...log, events: [event, ...log.events] } : null;
}

/** The lines of a log, oldest first. */
export function linesOf(log: Log): LogLine[] {
  return log.events.toReversed().flatMap(({ revision, created_at, log_lines }) =>
    log_lines.map((text, index) => ({ id: `${revision}.${index}`, time: created_at, text })),
  );
}

/** Lines as a text file, each with its time. */
export function textOf(lines: readonly LogLine[]): string {
  return lines.map(({ time, text }) => `${time} ${text}\n`).join("");
}

async function fetchPage(fetch: FetchEvents, page: number): Promise<{ events: LogEvent[]; isLast: boolean }> {
  const { events, pagination } = await fetch(page, LIMITS[0]);
  const isLast = page * LIMITS[0] >= pagination.total;
  return { events: await withOmitted(fetch, page, events, 0), isLast };
}

/** The events of a page, fetched again in smaller pages where it left lines out. */
async function withOmitted(fetch: FetchEvents, page: number, events: JobEvent[], size: number): Promise<LogEvent[]> {
  const [limit, smaller] = [LIMITS[size], LIMITS[size + 1]];
  const isWhole = !events.some(({ log_lines: [first, ...others] }) => others.length === 0 && first && OMITTED.test(first));
  if (limit === undefined || smaller === undefined || isWhole) return events;
  const parts: LogEvent[] = [];
  for (let part = 0; part < limit / smaller && part * smaller < events.length; part += 1) {
    const number = ((page - 1) * limit) / smaller + part + 1;
    parts.push(...(await withOmitted(fetch, number, (await fetch(number, smaller)).events, size + 1)));
  }
  return parts;
}
