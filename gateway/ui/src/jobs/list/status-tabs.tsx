import type { JobStatus } from "@/api/types";
import { cn } from "@/lib/cn";
import { capitalise, count } from "@/lib/format";
import { STATUSES } from "./filters";

type Props = {
  status: JobStatus | null;
  /** Jobs by status. Undefined while the first page is loaded. */
  counts: Readonly<Record<string, number>> | undefined;
  onChange: (status: JobStatus | null) => void;
};

/** Filters by status, each with its number of jobs below it, so that longer numbers do not shift the layout. */
export function StatusTabs({ status, counts, onChange }: Props) {
  const all = counts && Object.values(counts).reduce((sum, number) => sum + number, 0);
  return (
    <div role="group" aria-label="Status" className="-mx-4 mb-4 overflow-x-auto px-4 py-1 sm:-mx-1 sm:px-1">
      <div className="flex gap-1.5 md:grid md:grid-cols-7">
        {[null, ...STATUSES].map((one) => {
          const number = one === null ? all : counts && (counts[one] ?? 0);
          return (
            <button
              key={one ?? "all"}
              type="button"
              aria-pressed={status === one}
              onClick={() => onChange(one)}
              className={cn(
                "min-w-20 shrink-0 rounded-xl border px-3 py-1.5 text-left text-[0.8125rem] font-medium transition-colors",
                status === one ? "border-brand bg-brand-soft text-brand" : "border-line bg-card text-soft hover:border-line-strong hover:text-ink",
              )}
            >
              {one ? capitalise(one) : "All"}{" "}
              <span className="figures block text-base leading-5 font-semibold">{number === undefined ? "\u00a0" : count(number)}</span>
            </button>
          );
        })}
      </div>
    </div>
  );
}
