import type { UseQueryResult } from "@tanstack/react-query";
import { CircleAlert, WifiOff, type LucideIcon } from "lucide-react";
import { useState, type ReactNode } from "react";

import { explain } from "@/api/errors";
import { useOnline } from "@/hooks/online";
import { Button } from "@/components/ui/button";
import { Skeleton } from "@/components/ui/skeleton";

type EmptyProps = {
  icon: LucideIcon;
  title: string;
  children: ReactNode;
  action?: ReactNode;
  /** Whether it fills the page, so that its title is the page's heading. */
  isPage?: boolean;
};

/** An empty list or page: what is missing, and what to do. */
export function Empty({ icon: Icon, title, children, action, isPage }: EmptyProps) {
  const Heading = isPage ? "h1" : "h2";
  return (
    <div className="flex flex-col items-center px-6 py-14 text-center">
      <span className="mb-4 grid size-12 place-items-center rounded-2xl bg-brand-soft text-brand">
        <Icon className="size-5.5" aria-hidden />
      </span>
      <Heading className="font-semibold tracking-tight">{title}</Heading>
      <p className="mt-1 max-w-sm text-sm text-pretty text-soft">{children}</p>
      {action && <div className="mt-5">{action}</div>}
    </div>
  );
}

type Query = Pick<UseQueryResult, "error" | "errorUpdateCount" | "fetchStatus" | "refetch">;

/** Shown while a query has no data: its error, a note that the browser is offline, or `children` while it loads. */
export function Unloaded({ query, children }: { query: Query; children: ReactNode }) {
  // A query drops its error while it is fetched again. This keeps showing it until the response.
  const [lastError, setLastError] = useState(query.error);
  if (query.error !== null && query.error !== lastError) setLastError(query.error);
  if (query.errorUpdateCount > 0) return <Failed error={query.error ?? lastError} onRetry={() => void query.refetch()} />;
  return query.fetchStatus === "paused" ? <Offline /> : children;
}

/** The skeleton of a list. */
export function LoadingRows({ noun }: { noun: string }) {
  return (
    <div role="status">
      <span className="sr-only">Loading {noun}</span>
      {[0, 1, 2, 3].map((row) => (
        <div key={row} className="flex items-center gap-6 border-b border-line px-5 py-4 last:border-0">
          <div className="grow space-y-2">
            <Skeleton className="h-4 w-2/5" />
            <Skeleton className="h-3.5 w-1/4" />
          </div>
          <Skeleton className="h-8 w-28" />
        </div>
      ))}
    </div>
  );
}

/** An error with a button to try again. */
export function Failed({ error, onRetry }: { error: unknown; onRetry: () => void }) {
  const online = useOnline();
  const { title, description } = explain(error);
  const Icon = online ? CircleAlert : WifiOff;
  return (
    <div role="alert" className="flex flex-col items-center px-6 py-12 text-center">
      <span className="mb-4 grid size-12 place-items-center rounded-2xl bg-bad-soft text-bad">
        <Icon className="size-5.5" aria-hidden />
      </span>
      <h2 className="font-semibold tracking-tight">{online ? title : "You are offline"}</h2>
      <p className="mt-1 max-w-md text-sm text-pretty text-soft">
        {online ? description : "It loads when the connection is back."}
      </p>
      <Button className="mt-5" onClick={onRetry}>
        Try again
      </Button>
    </div>
  );
}

/** Shown while a query waits for the connection. */
function Offline() {
  return (
    <div role="status" className="flex flex-col items-center px-6 py-12 text-center">
      <span className="mb-4 grid size-12 place-items-center rounded-2xl bg-warn-soft text-warn">
        <WifiOff className="size-5.5" aria-hidden />
      </span>
      <h2 className="font-semibold tracking-tight">You are offline</h2>
      <p className="mt-1 text-sm text-soft">It loads when the connection is back.</p>
    </div>
  );
}
