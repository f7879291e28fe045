import "./index.css";

import { MutationCache, QueryCache, QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { lazy, StrictMode, Suspense } from "react";
import { createRoot } from "react-dom/client";
import { RouterProvider } from "react-router";

import { ApiError } from "./api/errors";
import { keepTranslationsInStep } from "./app/translation";
import { chunk } from "./lib/chunk";
import { router } from "./router";

const Toasts = lazy(async () => ({ default: (await chunk(() => import("./app/toasts"))).Toasts }));

/** Goes to the sign-in page when the session has ended. Signing in leads back to the current page. */
function redirectWhenSignedOut(error: unknown): void {
  const { pathname, search } = router.state.location;
  if (!(error instanceof ApiError) || error.status !== 401 || pathname === "/login") return;
  queries.removeQueries({ queryKey: ["session"] });
  void router.navigate(`/login?next=${encodeURIComponent(pathname + search)}`, { replace: true });
}

const queries = new QueryClient({
  queryCache: new QueryCache({ onError: redirectWhenSignedOut }),
  mutationCache: new MutationCache({ onError: redirectWhenSignedOut }),
  defaultOptions: {
    queries: {
      retry: (failures, error) => error instanceof ApiError && error.isTemporary && failures < 2,
      refetchOnWindowFocus: false,
    },
  },
});

keepTranslationsInStep();
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
