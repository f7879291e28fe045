import { beforeEach, expect, it } from "vitest";

import { FIELDS, type Configuration } from "./configuration";
import { draftOf, dropDraft, dropRequestId, keepDraft, requestIdOf } from "./draft";

beforeEach(() => localStorage.clear());

const draft = { datasetId: "d", presetId: "custom", basedOn: "fast", gpuType: "A", baseModel: null, choices: {}, targetModules: [], provider: null, values: { ...Object.fromEntries(FIELDS.map((field) => [field, null])), "gpu_config.count": Number.NaN } } as unknown as Configuration;

it("keeps a draft for each dataset, text that is no number included", () => {
  keepDraft("d", draft);
  expect(draftOf("d")).toEqual(draft);
  expect(draftOf("other")).toBeNull();
  dropDraft("d");
  expect(draftOf("d")).toBeNull();
});

it("has one idempotency key for a configuration until a job was made with it", () => {
  const first = requestIdOf("one");
  expect(requestIdOf("one")).toBe(first);
  expect(requestIdOf("two")).not.toBe(first);
  dropRequestId("one");
  expect(requestIdOf("one")).not.toBe(first);
});

it("works with what others left in the storage", () => {
  localStorage.setItem("pipeline.drafts", "{not json");
  localStorage.setItem("pipeline.request-ids", '"text"');
  expect(draftOf("d")).toBeNull();
  expect(requestIdOf("one")).toMatch(/^[0-9a-f-]{36}$/);
});

it("forgets the oldest when there are many", () => {
  for (let index = 0; index < 50; index += 1) requestIdOf(String(index));
  expect((JSON.parse(localStorage.getItem("pipeline.request-ids") ?? "[]") as unknown[]).length).toBe(20);
});
