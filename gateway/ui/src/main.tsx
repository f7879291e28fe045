import "./index.css";

import { MutationCache, QueryCache, QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { lazy, StrictMode, Suspense } from "react";
import { createRoot } from "react-dom/client";
import { RouterProvider } from "react-router";

import { ApiError } from "./api/errors";
import { router } from "./router";

const Toasts = lazy(async () => ({ default: (await import("./app/toasts")).Toasts }));

/** A session that is over leads to the door, and from there back to where the person was. */
function leaveWhenSignedOut(error: unknown): void {
  const { pathname, search } = router.state.location;
  if (!(error instanceof ApiError) || error.status !== 401 || pathname === "/login") return;
  // What was known of the session is over too; the door asks anew.
  queries.removeQueries({ queryKey: ["session"] });
  void router.navigate(`/login?next=${encodeURIComponent(pathname + search)}`, { replace: true });
}

const queries = new QueryClient({
  queryCache: new QueryCache({ onError: leaveWhenSignedOut }),
  mutationCache: new MutationCache({ onError: leaveWhenSignedOut }),
  defaultOptions: {
    queries: {
      retry: (failures, error) => error instanceof ApiError && error.isPassing && failures < 2,
      refetchOnWindowFocus: false,
    },
  },
});

const root = document.getElementById("root");
if (!root) throw new Error("index.html has no #root");
createRoot(root).render(
  <StrictMode>
    <QueryClientProvider client={queries}>
      <RouterProvider router={router} />
      <Suspense>
        <Toasts />
      </Suspense>
    </QueryClientProvider>
  </StrictMode>,
);
