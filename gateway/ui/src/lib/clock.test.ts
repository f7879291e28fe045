import { afterEach, expect, it, vi } from "vitest";

import { observeServerTime, serverNow } from "./clock";

afterEach(() => vi.useRealTimers());

it.each([
  ["an hour behind", 3_600_000],
  ["an hour ahead", -3_600_000],
  ["right to the second", 1000],
])("is the server's time where the browser's clock is %s", (_, difference) => {
  vi.useFakeTimers({ now: Date.parse("2026-01-01T12:00:00Z") });
  const server = Date.now() + difference;
  observeServerTime(new Response(null, { headers: { Date: new Date(server).toUTCString() } }));
  expect(Math.abs(serverNow() - server)).toBeLessThanOrEqual(1000);
});
