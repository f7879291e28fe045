import { expect, it } from "vitest";

import { ApiError, explain } from "./errors";

it.each([
  ["RATE_LIMITED", "Delete one. Try again in a moment. Nothing you entered is lost."],
  ["DATASET_LIMIT", "Delete one."],
] as const)("advises on %s to try again only where that helps", (reason, description) =>
  expect(explain(new ApiError(429, { reason, details: "Delete one." })).description).toBe(description),
);
