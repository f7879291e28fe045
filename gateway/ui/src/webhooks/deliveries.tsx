import { ChevronRight, RotateCw } from "lucide-react";
import { useState } from "react";

import type { WebhookDelivery } from "@/api/types";
import { Pager } from "@/components/pager";
import { Failed } from "@/components/states";
import { TimeAgo } from "@/components/time-ago";
import { Badge } from "@/components/ui/badge";
import { Button } from "@/components/ui/button";
import { Skeleton } from "@/components/ui/skeleton";
import { useDeliveries, useRedeliver } from "./queries";
import { showError } from "@/lib/error-toast";
import { count, moment } from "@/lib/format";
import { DELIVERY, EVENTS } from "./labels";

/** The deliveries of a webhook, each with its attempts. */
export function Deliveries({ id, name }: { id: string; name: string }) {
  const [page, setPage] = useState(1);
  const query = useDeliveries(id, page);
  if (query.isError && !query.data) return <Failed error={query.error} onRetry={() => void query.refetch()} />;
  if (!query.data) {
    return (
      <div role="status" className="mt-4 space-y-2 border-t border-line pt-4">
        <span className="sr-only">Loading deliveries</span>
        <Skeleton className="h-9 w-full" />
        <Skeleton className="h-9 w-full" />
      </div>
    );
  }
  const { deliveries, pagination } = query.data;
  return (
    <div className="mt-4 border-t border-line pt-2">
      {deliveries.length === 0 ? (
        <p className="py-4 text-sm text-soft">Nothing was sent yet. Send a test to check your receiver.</p>
      ) : (
        <ul aria-label={`Deliveries to ${name}, newest first`}>
          {deliveries.map((delivery) => (
            <Delivery key={delivery.id} delivery={delivery} />
          ))}
        </ul>
      )}
      <Pager pagination={pagination} noun="deliveries" onPage={setPage} />
    </div>
  );
}

function Delivery({ delivery }: { delivery: WebhookDelivery }) {
  const redeliver = useRedeliver();
  const { tone, text } = DELIVERY[delivery.status];
  return (
    <li className="flex items-start gap-2 border-b border-line py-2 last:border-0">
      <details className="group min-w-0 grow">
        <summary className="flex min-h-8 list-none flex-wrap items-center gap-x-3 gap-y-1 rounded-md text-sm">
          <ChevronRight className="size-4 text-soft transition-transform group-open:rotate-90" aria-hidden />
          <Badge tone={tone}>{text}</Badge>
          <span className="font-medium">{EVENTS[delivery.type]}</span>
          <span className="text-[0.8125rem] text-soft">
            <TimeAgo at={delivery.created_at} />
            {delivery.attempt_count > 1 && ` · ${count(delivery.attempt_count)} attempts`}
            {delivery.status === "pending" && delivery.next_attempt_at && delivery.attempt_count > 0 && (
              <>
                {" "}
                · next <TimeAgo at={delivery.next_attempt_at} />
              </>
            )}
          </span>
        </summary>
        <ol aria-label="Attempts, newest first" className="mt-2 ml-7 space-y-2 text-[0.8125rem]">
          {delivery.attempts.map((attempt) => (
            <li key={attempt.number}>
              <p className="figures text-soft">
                <span className="font-medium text-ink">
                  {attempt.http_status === null ? (attempt.error ?? "sending") : `HTTP ${attempt.http_status}`}
                </span>{" "}
                · attempt {attempt.number} · {moment(attempt.started_at)}
                {attempt.duration_ms !== null && ` · ${count(attempt.duration_ms)} ms`}
              </p>
              {attempt.response && <Code label="Response">{attempt.response}</Code>}
            </li>
          ))}
        </ol>
        <div className="mt-2 ml-7">
          <Code label="Request body">{delivery.body}</Code>
        </div>
      </details>
      <Button
        size="small"
        variant="ghost"
        isBusy={redeliver.isPending}
        disabled={redeliver.isPending || delivery.status === "sending"}
        aria-label={`Resend: ${EVENTS[delivery.type]}`}
        onClick={() =>
          redeliver.mutate(delivery, { onError: (error) => showError("Not resent", error) })
        }
      >
        {!redeliver.isPending && <RotateCw aria-hidden />}
        <span className="max-sm:sr-only">Resend</span>
      </Button>
    </li>
  );
}

function Code({ label, children }: { label: string; children: string }) {
  return (
    <>
      <p aria-hidden className="mt-1 text-[0.8125rem] text-soft">
        {label}
      </p>
      {/* A scrolling region needs a tab stop, so that the keyboard can scroll it. */}
      <pre tabIndex={0} role="region" aria-label={label} className="mt-1 max-h-40 overflow-auto rounded-lg bg-sunken px-3 py-2 font-mono text-xs break-all whitespace-pre-wrap">
        {children}
      </pre>
    </>
  );
}
