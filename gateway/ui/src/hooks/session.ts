import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";

import { ApiError } from "@/api/errors";

type Session = { user_id: string | null; dev_issuer: boolean };

/** The gateway's own door: it is no RPC, so the typed client does not know it. */
async function session<T>(method: "GET" | "POST" | "DELETE", signal?: AbortSignal): Promise<T> {
  let response: Response;
  try {
    response = await fetch("/api/session", { method, headers: { Accept: "application/json" }, signal: signal ?? null });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, null);
  }
  const body = (await response.json().catch(() => null)) as (T & { data?: T }) | null;
  if (!response.ok) throw new ApiError(response.status, body as ConstructorParameters<typeof ApiError>[1]);
  return (body?.data ?? body) as T;
}

/** Who is signed in, and whether this stack can sign a demo user in. */
export function useSession() {
  return useQuery<Session, ApiError>({
    queryKey: ["session"],
    queryFn: ({ signal }) => session<Session>("GET", signal),
    staleTime: 60_000,
  });
}

export function useSignIn() {
  const queries = useQueryClient();
  return useMutation<{ user_id: string }, ApiError>({
    mutationFn: () => session("POST"),
    onSuccess: () => queries.clear(),
  });
}

export function useSignOut() {
  const queries = useQueryClient();
  return useMutation<unknown, ApiError>({
    mutationFn: () => session("DELETE"),
    onSuccess: () => queries.clear(),
  });
}
