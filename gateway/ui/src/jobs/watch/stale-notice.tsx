import { RefreshCwOff } from "lucide-react";
import { useEffect, useState } from "react";

import { timeOfDay } from "@/lib/format";
import { LIVE_TIMEOUT_MS, jobWatch } from "./watch";

/** Data that is older than this is called out of date. */
const STALE_MS = 5000;
const TICK_MS = 500;

/** Says that what is shown is out of date, or that it is only polled, with the time of the last update. */
export function StaleNotice({ fetchedAt, className }: { fetchedAt: number; className?: string }) {
  const [{ now, openedAt }, setTimes] = useState(() => ({ now: Date.now(), openedAt: Date.now() }));
  useEffect(() => {
    const timer = setInterval(() => setTimes((times) => ({ ...times, now: Date.now() })), TICK_MS);
    return () => clearInterval(timer);
  }, []);
  const updatedAt = Math.max(fetchedAt, jobWatch.lastMessageAt());
  const isStale = now - updatedAt > STALE_MS;
  const isPolled = !isStale && now - openedAt > LIVE_TIMEOUT_MS && now - jobWatch.lastMessageAt() > LIVE_TIMEOUT_MS;
  return (
    <div role="status" className={className}>
      {(isStale || isPolled) && (
        <p className="mb-4 flex items-center gap-2.5 rounded-xl bg-warn-soft px-4 py-2.5 text-sm text-warn">
          <RefreshCwOff className="size-4 shrink-0" aria-hidden />
          <span>
            {isStale ? "Out of date: the server does not answer." : "Live updates are interrupted. Refreshing every 4 s."}{" "}
            <span className="figures whitespace-nowrap">Last update {timeOfDay(updatedAt)}.</span>
          </span>
        </p>
      )}
    </div>
  );
}
