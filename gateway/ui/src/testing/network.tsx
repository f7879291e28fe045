import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { act, cleanup } from "@testing-library/react";
import type { ReactNode } from "react";
import { afterEach, beforeEach, vi } from "vitest";

type Call = { url: string; body: unknown; signal: AbortSignal; respond: (data: unknown, status?: number) => Promise<void> };

/** The requests of the running test, in order. */
export let calls: Call[];
let queries: QueryClient;

/** Replaces `fetch` for the tests of a file, and the clock: each request waits until the test responds to it. */
export function installFakeNetwork(): void {
  beforeEach(() => {
    vi.useFakeTimers();
    calls = [];
    vi.stubGlobal("fetch", async (request: Request, { signal }: { signal: AbortSignal }) => {
      const body: unknown = request.method === "GET" ? null : await request.clone().json();
      return new Promise<Response>((resolve, reject) => {
        signal.addEventListener("abort", () => reject(new DOMException("aborted", "AbortError")));
        calls.push({
          url: request.url,
          body,
          signal,
          respond: async (data, status = 200) => {
            const content = status < 400 ? { success: true, data } : data;
            resolve(new Response(JSON.stringify(content), { status, headers: { "Content-Type": "application/json" } }));
            await vi.advanceTimersByTimeAsync(1);
          },
        });
      });
    });
    queries = new QueryClient({ defaultOptions: { queries: { retry: false } } });
  });
  afterEach(() => {
    cleanup();
    queries.clear();
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });
}

export function wrapper({ children }: { children: ReactNode }) {
  return <QueryClientProvider client={queries}>{children}</QueryClientProvider>;
}

/** Lets time pass. */
export const pass = (ms: number) => act(() => vi.advanceTimersByTimeAsync(ms));
