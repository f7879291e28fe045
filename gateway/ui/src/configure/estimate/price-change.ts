import { useState } from "react";

/** How a price moved with the last change of the configuration, in dollars, and why where that is not obvious. */
export type PriceChange = { amount: number; reason: string | null };

type State = { key: string; baseModel: string | null; total: number; change: PriceChange | null };

/**
 * The change of the price since the configuration changed. Null: there was no change, or it cost nothing.
 * `key` identifies the configuration; null while it is invalid. `total` is its price; undefined while that is unknown.
 */
export function usePriceChange(key: string | null, baseModel: string | null, total: number | undefined): PriceChange | null {
  const [state, setState] = useState<State | null>(null);
  if (key !== null && total !== undefined) {
    if (state === null || (state.key === key && state.total !== total)) {
      setState({ key, baseModel, total, change: state?.change ?? null });
    } else if (state.key !== key) {
      // In whole cents: the difference of two doubles is not.
      const amount = Math.round((total - state.total) * 100) / 100;
      setState({ key, baseModel, total, change: amount === 0 ? null : { amount, reason: reasonOf(state.baseModel, baseModel) } });
    }
  }
  return state?.change ?? null;
}

function reasonOf(before: string | null, after: string | null): string | null {
  if (before === after) return null;
  if (after === null) return "Without a base model one speed for the GPU type is assumed.";
  return `The estimate now uses the speed of ${after} on this GPU type.`;
}
