import { expect, it } from "vitest";

import { durationTicks, logScale, moneyTicks, spacedTicks } from "./scale";

it("has round ticks of money and of time", () => {
  expect(moneyTicks([0.7, 30])).toEqual([1, 2, 5, 10, 20]);
  expect(durationTicks([0.2, 5])).toEqual([0.25, 0.5, 1, 2, 3]);
});

it("leaves out ticks whose labels would touch", () => {
  const position = logScale([0.1, 100], 0, 100);
  expect(spacedTicks([0.1, 0.2, 1, 10], position, 30)).toEqual([0.1, 1, 10]);
});
