import { useRouteError } from "react-router";

import { Button } from "@/components/ui/button";

/** Shown when the page fails to render, or when a newer version was deployed while it was open. */
export function ErrorPage() {
  const error = useRouteError();
  return (
    <main className="grid min-h-dvh place-items-center px-6 text-center">
      <div role="alert">
        <h1 className="text-xl font-semibold tracking-tight">This page failed</h1>
        <p className="mt-2 max-w-md text-sm text-soft">
          Reload it. Your configuration is saved.{" "}
          {error instanceof Error && <span className="block pt-2 font-mono text-xs">{error.message}</span>}
        </p>
        <Button variant="primary" className="mt-6" onClick={() => window.location.reload()}>
          Reload
        </Button>
      </div>
    </main>
  );
}
