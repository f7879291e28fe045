import {
  Ban,
  CircleAlert,
  CircleCheck,
  Clock,
  Coins,
  Gauge,
  PlugZap,
  RotateCcw,
  Rocket,
  TrendingUp,
  Undo2,
  Unplug,
  type LucideIcon,
} from "lucide-react";

import type { Job, JobEvent } from "@/api/types";
import { Failed } from "@/components/states";
import { TimeAgo } from "@/components/time-ago";
import { Skeleton } from "@/components/ui/skeleton";
import { useJobEvents } from "@/jobs/queries";
import { cn } from "@/lib/cn";
import { count, money } from "@/lib/format";
import { Panel } from "./panel";

const EVENTS: Readonly<Record<JobEvent["type"], { icon: LucideIcon; tone: string; text: string }>> = {
  queued: { icon: Clock, tone: "text-soft", text: "Queued" },
  leased: { icon: PlugZap, tone: "text-live", text: "Leased by a trainer" },
  started: { icon: Rocket, tone: "text-live", text: "Training started" },
  progress: { icon: TrendingUp, tone: "text-soft", text: "Progress" },
  completed: { icon: CircleCheck, tone: "text-good", text: "Completed" },
  failed: { icon: CircleAlert, tone: "text-bad", text: "Failed" },
  cancelled: { icon: Ban, tone: "text-soft", text: "Cancelled" },
  lease_lost: { icon: Unplug, tone: "text-warn", text: "Trainer lost" },
  retried: { icon: RotateCcw, tone: "text-warn", text: "Queued for another attempt" },
  released: { icon: Undo2, tone: "text-warn", text: "Released by the trainer" },
  reforecast: { icon: Gauge, tone: "text-live", text: "New forecast from the measured speed" },
  cost_warning: { icon: Coins, tone: "text-warn", text: "80 % of the cost limit used" },
};

export function EventsPanel({ job }: { job: Job }) {
  const query = useJobEvents(job.id, !job.is_final);
  return (
    <Panel title="Events">
      {query.isPending ? (
        <div className="space-y-3">
          <Skeleton className="h-5 w-2/3" />
          <Skeleton className="h-5 w-1/2" />
        </div>
      ) : query.data ? (
        // A scrolling list needs a tab stop, so that the keyboard can scroll it.
        <ol tabIndex={0} aria-label="Events, newest first" className="max-h-80 space-y-2.5 overflow-y-auto rounded-md pr-1">
          {query.data.map((event) => (
            <Entry key={event.id} event={event} />
          ))}
        </ol>
      ) : (
        <Failed error={query.error} onRetry={() => void query.refetch()} />
      )}
    </Panel>
  );
}

function Entry({ event }: { event: JobEvent }) {
  const { icon: Icon, tone, text } = EVENTS[event.type];
  return (
    <li className="flex gap-3 text-sm">
      <Icon className={cn("mt-0.5 size-4 shrink-0", tone)} aria-hidden />
      <div className="min-w-0 grow">
        <p className="flex flex-wrap items-baseline justify-between gap-x-3">
          <span>{event.type === "progress" ? `Step ${count(event.current_step)}, ${Math.round(event.progress)} %` : text}</span>
          <span className="text-xs text-soft">
            <TimeAgo at={event.created_at} />
          </span>
        </p>
        {event.error_message && <p className="text-[0.8125rem] wrap-anywhere text-bad">{event.error_message}</p>}
        {event.type === "cost_warning" && (
          <p className="text-[0.8125rem] text-soft">
            {money(event.current_cost)}, {Math.round((event.cost_limit_share ?? 0) * 100)} % of the limit
          </p>
        )}
        {event.reforecast && <p className="text-[0.8125rem] text-soft">{event.reforecast.note}</p>}
      </div>
    </li>
  );
}
