import { createBrowserRouter, Navigate } from "react-router";

import { ErrorPage } from "./app/error-page";
import { Shell } from "./app/shell";
import { chunk } from "./lib/chunk";

/** Routes. Each page is a chunk of its own, loaded when it is first visited. */
export const router = createBrowserRouter([
  {
    errorElement: <ErrorPage />,
    children: [
      { path: "/login", lazy: async () => ({ Component: (await chunk(() => import("./pages/login"))).LoginPage }) },
      {
        element: <Shell />,
        children: [
          { index: true, element: <Navigate to="/datasets" replace /> },
          { path: "/datasets", lazy: async () => ({ Component: (await chunk(() => import("./pages/datasets"))).DatasetsPage }) },
          { path: "/datasets/:id", lazy: async () => ({ Component: (await chunk(() => import("./pages/dataset"))).DatasetPage }) },
          ...["/training", "/jobs"].map((path) => ({ path, element: <Navigate to="/training/jobs" replace /> })),
          {
            path: "/training/configure",
            lazy: async () => ({ Component: (await chunk(() => import("./pages/configure"))).ConfigurePage }),
          },
          { path: "/training/jobs", lazy: async () => ({ Component: (await chunk(() => import("./pages/jobs"))).JobsPage }) },
          { path: "/training/jobs/compare", lazy: async () => ({ Component: (await chunk(() => import("./pages/compare"))).ComparePage }) },
          { path: "/training/jobs/:id", lazy: async () => ({ Component: (await chunk(() => import("./pages/job"))).JobPage }) },
          { path: "/keys", lazy: async () => ({ Component: (await chunk(() => import("./pages/keys"))).KeysPage }) },
          { path: "/webhooks", lazy: async () => ({ Component: (await chunk(() => import("./pages/webhooks"))).WebhooksPage }) },
          { path: "*", lazy: async () => ({ Component: (await chunk(() => import("./pages/not-found"))).NotFoundPage }) },
        ],
      },
    ],
    hydrateFallbackElement: <div className="min-h-dvh" />,
  },
]);
