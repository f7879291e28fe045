import { Lock, LockOpen } from "lucide-react";

import type { EstimateRequest, Quote } from "@/api/types";
import { Button } from "@/components/ui/button";
import { useCreateQuote } from "./queries";
import { useNow } from "@/hooks/now";
import { showError } from "@/lib/error-toast";
import { money, moment } from "@/lib/format";

type Props = {
  request: EstimateRequest;
  quote: Quote | null;
  /** Whether the estimate is current. */
  isReady: boolean;
  /** Why the price cannot be locked; null if it can. */
  blocked: string | null;
  onQuote: (quote: Quote) => void;
};

/** Creates a quote, which locks the price, and shows until when it is valid. */
export function QuoteBadge({ request, quote, isReady, blocked, onQuote }: Props) {
  const create = useCreateQuote();
  const now = useNow();
  if (quote && new Date(quote.expires_at).getTime() > now) {
    return (
      <p role="status" className="figures flex min-h-8 items-center py-1 gap-2 rounded-lg bg-brand-soft px-3 text-[0.8125rem] text-brand">
        <Lock className="size-3.5 shrink-0" aria-hidden />
        {money(quote.cost_p50)} is locked until {moment(quote.expires_at)}
      </p>
    );
  }
  return (
    <>
      <Button
        size="small"
        variant="ghost"
        className="w-full justify-start px-3"
        disabled={!isReady || blocked !== null || create.isPending}
        isBusy={create.isPending}
        onClick={() =>
          create.mutate(request, {
            onSuccess: onQuote,
            onError: (error) => showError("The price was not locked", error),
          })
        }
      >
        {!create.isPending && <LockOpen aria-hidden />}
        {quote ? "The quote has expired. Lock the price again" : "Lock this price"}
      </Button>
      {blocked && <p className="px-3 text-xs text-soft">{blocked}</p>}
    </>
  );
}
