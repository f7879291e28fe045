import { expect, it } from "vitest";

import { aboutDuration, ago, bytes, duration, moneyChange, scientific } from "./format";

it.each([
  [0.005, "under a minute"],
  [0.8, "48 min"],
  [1, "1 h"],
  [2.08, "2 h 05 min"],
  [1300.5, "1,300 h 30 min"],
])("formats %s hours", (hours, text) => expect(duration(hours)).toBe(text));

it("formats an estimated duration", () => {
  expect([aboutDuration(0.8), aboutDuration(0.001)]).toEqual(["about 48 min", "under a minute"]);
});

it.each([
  [5e-5, "5e-5"],
  [1.23e-4, "1.23e-4"],
  [1e-3, "1e-3"],
  [2.1e-5, "2.1e-5"],
])("formats the learning rate %s", (value, text) => expect(scientific(value)).toBe(text));

it("formats a change of price with its sign", () => {
  expect([moneyChange(3.1), moneyChange(-0.4)]).toEqual(["+$3.10", "−$0.40"]);
});

it("formats sizes and relative times", () => {
  expect([bytes(999), bytes(1_500_000)]).toEqual(["999 B", "1.5 MB"]);
  const now = Date.parse("2026-01-01T12:00:00Z");
  expect(ago("2026-01-01T11:58:00Z", now)).toBe("2 minutes ago");
  expect(ago("2025-12-31T11:00:00Z", now)).toBe("yesterday");
  expect(ago("2026-01-01T12:00:00Z", now)).toBe("just now");
});
