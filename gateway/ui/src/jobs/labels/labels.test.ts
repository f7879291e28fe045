import { expect, it } from "vitest";

import { isLabel, withLabels } from "./labels";

it.each([
  ["nightly", true],
  ["two words", true],
  ["ü".repeat(64), true],
  ["", false],
  [" a", false],
  ["a,b", false],
  ["a\nb", false],
  ["a".repeat(65), false],
])("takes %j as a label: %s", (text, valid) => expect(isLabel(text)).toBe(valid));

it("adds the labels of a text once each, up to twenty", () => {
  expect(withLabels(["a"], " b, a,, c ")).toEqual(["a", "b", "c"]);
  expect(withLabels([], Array.from({ length: 30 }, (_, index) => String(index)).join())).toHaveLength(20);
});
