import { useEffect, useState } from "react";

import { serverNow } from "@/lib/clock";

/** The current time by the server's clock, updated every `everyMs` milliseconds. */
export function useNow(everyMs = 15_000): number {
  const [now, setNow] = useState(serverNow);
  useEffect(() => {
    const timer = setInterval(() => setNow(serverNow()), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return now;
}
