import { expect, test } from "vitest";

import type { JobEvent } from "@/api/types";
import { linesOf, merge, textOf, withEarlier, withEvent, withNewer, type FetchEvents, type Log } from "./log";

const TIME = "2026-11-27T10:00:00Z";

function event(revision: number, lines = [`line ${revision}`]): JobEvent {
  return { revision, created_at: TIME, log_lines: lines } as JobEvent;
}

/** A server that has events 1 to `total`, whose pages leave out lines of `large` events unless there are few on them. */
function server(total: number, large: readonly number[] = []) {
  const state = { total, pages: [] as [page: number, limit: number][] };
  const fetch: FetchEvents = (page, limit) => {
    state.pages.push([page, limit]);
    const first = state.total - (page - 1) * limit;
    const revisions = Array.from({ length: Math.max(0, Math.min(limit, first)) }, (_, index) => first - index);
    const events = revisions.map((revision) =>
      large.includes(revision) && limit > 2
        ? event(revision, ["(2 lines are too long for this page; a page of fewer events has room for them)"])
        : event(revision, large.includes(revision) ? [`a ${revision}`, `b ${revision}`] : [`line ${revision}`]),
    );
    return Promise.resolve({ events, pagination: { page, limit, total: state.total, totalPages: Math.ceil(state.total / limit) } });
  };
  return { state, fetch };
}

const revisions = (log: Log) => log.events.map(({ revision }) => revision);

test("all lines are reached page by page, oldest first in the end", async () => {
  const { fetch } = server(250);
  let log = await withNewer(undefined, fetch);
  expect(revisions(log)).toEqual(Array.from({ length: 100 }, (_, index) => 250 - index));
  while (!log.isComplete) log = await withEarlier(log, fetch);
  expect(linesOf(log).map(({ text }) => text)).toEqual(Array.from({ length: 250 }, (_, index) => `line ${index + 1}`));
});

test("events that come meanwhile move the pages on, and none is left out", async () => {
  const { state, fetch } = server(250);
  let log = await withNewer(undefined, fetch);
  for (const added of [30, 120, 1]) {
    state.total += added;
    if (!log.isComplete) log = await withEarlier(log, fetch);
  }
  log = await withNewer(log, fetch);
  while (!log.isComplete) log = await withEarlier(log, fetch);
  expect(revisions(log)).toEqual(Array.from({ length: 401 }, (_, index) => 401 - index));
});

test("lines that a page has no room for are fetched in smaller pages", async () => {
  const { state, fetch } = server(130, [97, 101]);
  const log = await withNewer(undefined, fetch);
  expect(linesOf(log).filter(({ text }) => !text.startsWith("line"))).toMatchObject([
    { text: "a 97" },
    { text: "b 97" },
    { text: "a 101" },
    { text: "b 101" },
  ]);
  expect(revisions(log)).toEqual(Array.from({ length: 100 }, (_, index) => 130 - index));
  expect(state.pages.filter(([, limit]) => limit === 2)).toHaveLength(10);
});

test("an event extends a log only where it is the next one", () => {
  const log = merge(undefined, [event(2), event(1)], true);
  expect(withEvent(log, event(2))).toBe(log);
  expect(revisions(withEvent(log, event(3)) ?? log)).toEqual([3, 2, 1]);
  expect(withEvent(log, event(4))).toBeNull();
});

test("the file has a time before each line", () => {
  expect(textOf(linesOf(merge(undefined, [event(1, ["a", "b"])], true)))).toBe(`${TIME} a\n${TIME} b\n`);
});
