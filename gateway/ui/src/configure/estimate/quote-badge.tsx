import { Lock, LockOpen } from "lucide-react";

import type { EstimateRequest, Quote } from "@/api/types";
import { Button } from "@/components/ui/button";
import { useCreateQuote } from "./queries";
import { useNow } from "@/hooks/now";
import { showError } from "@/lib/error-toast";
import { money } from "@/lib/format";

const clock = new Intl.DateTimeFormat("en-US", { timeStyle: "short" });

type Props = { asked: EstimateRequest; quote: Quote | null; disabled: boolean; onQuote: (quote: Quote) => void };

/** Holds the price, and says until when it holds. */
export function QuoteBadge({ asked, quote, disabled, onQuote }: Props) {
  const create = useCreateQuote();
  const now = useNow();
  if (quote && new Date(quote.expires_at).getTime() > now) {
    return (
      <p role="status" className="figures flex h-8 items-center gap-2 rounded-lg bg-brand-soft px-3 text-[0.8125rem] text-brand">
        <Lock className="size-3.5 shrink-0" aria-hidden />
        {money(quote.cost_p50)} holds until {clock.format(new Date(quote.expires_at))}
      </p>
    );
  }
  return (
    <Button
      size="small"
      variant="ghost"
      className="w-full justify-start px-3"
      disabled={disabled || create.isPending}
      isBusy={create.isPending}
      onClick={() =>
        create.mutate(asked, {
          onSuccess: onQuote,
          onError: (error) => showError("The price cannot be held", error),
        })
      }
    >
      {!create.isPending && <LockOpen aria-hidden />}
      {quote ? "The price no longer holds: hold it anew" : "Hold this price"}
    </Button>
  );
}
