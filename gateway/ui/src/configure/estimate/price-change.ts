import { useState } from "react";

/** How much the price moved with the last change of the configuration; null before there was one. */
export function usePriceChange(configuration: string | null, total: number | undefined): number | null {
  const [held, setHeld] = useState<{ configuration: string; total: number; change: number | null } | null>(null);
  if (configuration !== null && total !== undefined) {
    if (held === null || (held.configuration === configuration && held.total !== total)) {
      setHeld({ configuration, total, change: held?.change ?? null });
    } else if (held.configuration !== configuration) {
      // In cents: what is left of two doubles is no money.
      setHeld({ configuration, total, change: Math.round((total - held.total) * 100) / 100 });
    }
  }
  return held?.change ?? null;
}
