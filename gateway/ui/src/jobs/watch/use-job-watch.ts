import { useEffect, useEffectEvent, useSyncExternalStore } from "react";

import type { WatchMessage } from "./connection";
import { jobWatch } from "./watch";

/** Follows the user's jobs while `isEnabled`. Returns whether the watch is live. */
export function useJobWatch(isEnabled: boolean, onMessage: (message: WatchMessage) => void): boolean {
  const receive = useEffectEvent(onMessage);
  const isLive = useSyncExternalStore(jobWatch.observe, jobWatch.isLive);
  useEffect(() => {
    if (!isEnabled) return;
    let unsubscribe: (() => void) | null = null;
    const start = () => {
      unsubscribe ??= jobWatch.subscribe((message) => receive(message));
    };
    const stop = () => {
      unsubscribe?.();
      unsubscribe = null;
    };
    start();
    // A window that is closed or kept for the Back button runs no cleanup of its effects.
    window.addEventListener("pagehide", stop);
    window.addEventListener("pageshow", start);
    return () => {
      window.removeEventListener("pagehide", stop);
      window.removeEventListener("pageshow", start);
      stop();
    };
  }, [isEnabled]);
  return isEnabled && isLive;
}
