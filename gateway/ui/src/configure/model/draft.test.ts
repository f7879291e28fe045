import { beforeEach, expect, it } from "vitest";

import { FIELDS, type Configuration } from "./configuration";
import { getDraft, deleteDraft, deleteRequestId, saveDraft, getRequestId } from "./draft";

beforeEach(() => localStorage.clear());

const draft = { datasetId: "d", presetId: "custom", basedOn: "fast", gpuType: "A", baseModel: null, choices: {}, targetModules: [], validation: null, provider: null, name: "n", labels: ["a"], values: { ...Object.fromEntries(FIELDS.map((field) => [field, null])), "gpu_config.count": Number.NaN } } as unknown as Configuration;

it("keeps a draft for each dataset, with text that is not a number", () => {
  saveDraft("d", draft);
  expect(getDraft("d")).toEqual(draft);
  expect(getDraft("other")).toBeNull();
  deleteDraft("d");
  expect(getDraft("d")).toBeNull();
});

it("has one idempotency key for a configuration until a job was created", () => {
  const first = getRequestId("one");
  expect(getRequestId("one")).toBe(first);
  expect(getRequestId("two")).not.toBe(first);
  deleteRequestId("one");
  expect(getRequestId("one")).not.toBe(first);
});

it("ignores unreadable storage", () => {
  localStorage.setItem("pipeline.drafts", "{not json");
  localStorage.setItem("pipeline.request-ids", '"text"');
  expect(getDraft("d")).toBeNull();
  expect(getRequestId("one")).toMatch(/^[0-9a-f-]{36}$/);
});

it("deletes the oldest entries", () => {
  for (let index = 0; index < 50; index += 1) getRequestId(String(index));
  expect((JSON.parse(localStorage.getItem("pipeline.request-ids") ?? "[]") as unknown[]).length).toBe(20);
});
