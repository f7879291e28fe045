import { createBrowserRouter, Navigate } from "react-router";

import { ErrorPage } from "./app/error-page";
import { Shell } from "./app/shell";

/** Each page is a chunk of its own, fetched when it is first gone to. */
export const router = createBrowserRouter([
  {
    errorElement: <ErrorPage />,
    children: [
      { path: "/login", lazy: async () => ({ Component: (await import("./pages/login")).LoginPage }) },
      {
        element: <Shell />,
        children: [
          { index: true, element: <Navigate to="/datasets" replace /> },
          { path: "/datasets", lazy: async () => ({ Component: (await import("./pages/datasets")).DatasetsPage }) },
          { path: "/training", element: <Navigate to="/training/jobs" replace /> },
          {
            path: "/training/configure",
            lazy: async () => ({ Component: (await import("./pages/configure")).ConfigurePage }),
          },
          { path: "/training/jobs", lazy: async () => ({ Component: (await import("./pages/jobs")).JobsPage }) },
          { path: "/training/jobs/:id", lazy: async () => ({ Component: (await import("./pages/job")).JobPage }) },
          { path: "/webhooks", lazy: async () => ({ Component: (await import("./pages/webhooks")).WebhooksPage }) },
          { path: "*", lazy: async () => ({ Component: (await import("./pages/not-found")).NotFoundPage }) },
        ],
      },
    ],
    hydrateFallbackElement: <div className="min-h-dvh" />,
  },
]);
