import createClient from "openapi-fetch";

import { ApiError } from "./errors";
import type { components, paths } from "./schema";

const TIMEOUT_MS = 20_000;

declare global {
  /** What `public/start.js` asked before this script had come. */
  var asked: { path: string; answer: Promise<Response> } | undefined;
}

/** The answer that is under way since before this script ran, once. */
function alreadyAsked(request: Request): Promise<Response> | null {
  const early = globalThis.asked;
  if (!early || request.method !== "GET" || request.url !== window.location.origin + early.path) return null;
  globalThis.asked = undefined;
  return early.answer;
}

/** `fetch` with a deadline, whose failures are ApiErrors. A request that its asker gave up stays an AbortError. */
async function call(request: Request): Promise<Response> {
  const deadline = AbortSignal.timeout(TIMEOUT_MS);
  try {
    return await (alreadyAsked(request) ?? fetch(request, { signal: AbortSignal.any([request.signal, deadline]) }));
  } catch (error) {
    if (request.signal.aborted) throw error;
    throw new ApiError(0, deadline.aborted ? { error: "The server did not answer in time" } : null);
  }
}

export const client = createClient<paths>({ baseUrl: window.location.origin, fetch: call });

type Answer<T> = { data?: { success: true; data: T }; error?: unknown; response: Response };

/** The answer's data, or the ApiError it tells. */
export async function dataOf<T>(answer: Promise<Answer<T>>): Promise<T> {
  const { data, error, response } = await answer;
  if (data !== undefined) return data.data;
  throw new ApiError(response.status, isErrorBody(error) ? error : null);
}

function isErrorBody(body: unknown): body is components["schemas"]["ErrorBody"] {
  return typeof body === "object" && body !== null && "error" in body;
}
