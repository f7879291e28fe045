import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { chunk } from "./chunk";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const lost = () => Promise.reject(new TypeError("Failed to fetch dynamically imported module"));

test("a chunk that the server was away for is loaded once the server answers", async () => {
  const answers = [lost, () => Promise.resolve(new Response("", { status: 503 })), () => Promise.resolve(new Response("ok"))];
  const fetch = vi.fn(() => answers.shift()!());
  vi.stubGlobal("fetch", fetch);
  const load = vi.fn().mockImplementationOnce(lost).mockResolvedValue("the chunk");
  const loaded = chunk(load);
  await vi.advanceTimersByTimeAsync(999);
  expect(load).toHaveBeenCalledTimes(1);
  await vi.advanceTimersByTimeAsync(1);
  expect(await loaded).toBe("the chunk");
  expect(fetch).toHaveBeenCalledTimes(3);
});

test("a chunk that is gone fails though the server answers", async () => {
  vi.stubGlobal("fetch", () => Promise.resolve(new Response("ok")));
  const load = vi.fn(lost);
  await expect(chunk(load)).rejects.toThrow("Failed to fetch");
  expect(load).toHaveBeenCalledTimes(2);
});

test("a server that stays away is waited for half a minute", async () => {
  vi.stubGlobal("fetch", lost);
  const failed = expect(chunk(lost)).rejects.toThrow("Failed to fetch");
  await vi.advanceTimersByTimeAsync(30_000);
  await failed;
});
