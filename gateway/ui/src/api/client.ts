import createClient from "openapi-fetch";

import { observeServerTime } from "@/lib/clock";
import { ApiError } from "./errors";
import type { components, paths } from "./schema";

const TIMEOUT_MS = 20_000;

declare global {
  /** The request that `public/start.js` sent before this script was loaded. */
  var earlyRequest: { path: string; response: Promise<Response> } | undefined;
}

/** The response to the request that `public/start.js` sent early, if it is for the same path. It is used once. */
function earlyResponse(request: Request): Promise<Response> | null {
  const early = globalThis.earlyRequest;
  if (!early || request.method !== "GET" || request.url !== window.location.origin + early.path) return null;
  globalThis.earlyRequest = undefined;
  return early.response;
}

/** `fetch` with a deadline, whose failures are ApiErrors. A request that its caller aborts rejects with an AbortError. */
async function call(request: Request): Promise<Response> {
  const deadline = AbortSignal.timeout(TIMEOUT_MS);
  try {
    const response = await (earlyResponse(request) ?? fetch(request, { signal: AbortSignal.any([request.signal, deadline]) }));
    observeServerTime(response);
    return response;
  } catch (error) {
    if (request.signal.aborted) throw error;
    throw new ApiError(0, deadline.aborted ? { error: "The server did not answer in time" } : null);
  }
}

export const client = createClient<paths>({ baseUrl: window.location.origin, fetch: call });

type Result<T> = { data?: { success: true; data: T }; error?: unknown; response: Response };

/** The data of a successful response. Throws an ApiError for any other. */
export async function dataOf<T>(result: Promise<Result<T>>): Promise<T> {
  const { data, error, response } = await result;
  if (data !== undefined) return data.data;
  throw new ApiError(response.status, isErrorBody(error) ? error : null);
}

function isErrorBody(body: unknown): body is components["schemas"]["ErrorBody"] {
  return typeof body === "object" && body !== null && "error" in body;
}
