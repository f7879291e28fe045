import { Pencil } from "lucide-react";
import type { ReactNode } from "react";
import { Link } from "react-router";

import type { Job } from "@/api/types";
import { openedFrom } from "@/components/back-link";
import { TimeAgo } from "@/components/time-ago";
import { Button } from "@/components/ui/button";
import { JobProgress } from "@/jobs/job-progress";
import { jobTitle } from "@/jobs/labels/labels";
import { JobStatusBadge } from "@/jobs/status-badge";
import { duration, money } from "@/lib/format";
import { COLUMNS } from "./columns";

type Props = { job: Job; select: ReactNode; onLabel: (label: string) => void; onModel: (id: string) => void; onEdit: (job: Job) => void };

export function Row({ job, select, onLabel, onModel, onEdit }: Props) {
  const title = jobTitle(job);
  const cost = job.final_cost ?? (job.current_cost > 0 ? job.current_cost : null);
  const details = [job.name ? job.dataset.name : null, job.dataset_deleted ? "dataset deleted" : null].filter(Boolean);
  return (
    <div
      role="row"
      className={`relative border-b border-line px-4 py-3 transition-colors last:border-0 hover:bg-sunken/60 max-md:grid max-md:px-3 max-md:grid-cols-[1.75rem_minmax(0,1fr)_auto] max-md:items-center max-md:gap-x-1.5 max-md:gap-y-2 ${COLUMNS}`}
    >
      <div role="cell" className="flex max-md:col-start-1 max-md:row-start-1">
        {select}
      </div>
      <div role="cell" className="min-w-0 max-md:col-start-2 max-md:row-start-1">
        <Link
          to={`/training/jobs/${job.id}`}
          state={openedFrom("/training/jobs")}
          title={title}
          className="block truncate font-medium after:absolute after:inset-0 focus-visible:outline-none focus-visible:after:rounded-lg focus-visible:after:outline-2 focus-visible:after:-outline-offset-2 focus-visible:after:outline-ring"
        >
          {title}
        </Link>
        <p className="truncate text-[0.8125rem] text-soft">
          {details.map((detail) => `${detail} · `)}
          <span className="lg:hidden">{job.base_model && `${job.base_model} · `}</span>
          created <TimeAgo at={job.created_at} />
        </p>
        {job.labels.length > 0 && (
          <ul aria-label={`Labels of ${title}`} className="mt-1 flex flex-wrap gap-1">
            {job.labels.map((label) => (
              <li key={label} className="max-w-full">
                <button
                  type="button"
                  title={`Show jobs with the label ${label}`}
                  className="relative z-10 block h-6 max-w-full truncate rounded-md bg-sunken px-2 text-xs text-soft hover:text-ink"
                  onClick={() => onLabel(label)}
                >
                  {label}
                </button>
              </li>
            ))}
          </ul>
        )}
      </div>
      <div role="cell" className="flex text-sm max-lg:hidden">
        {job.base_model ? (
          <button
            type="button"
            title={`Show jobs with the base model ${job.base_model}`}
            className="relative z-10 min-h-6 truncate underline-offset-4 hover:underline"
            onClick={() => job.base_model && onModel(job.base_model)}
          >
            {job.base_model}
          </button>
        ) : (
          <span className="text-soft">none</span>
        )}
      </div>
      <div role="cell" className="flex max-md:col-start-2 max-md:row-start-2">
        <JobStatusBadge status={job.status} />
      </div>
      <div role="cell" className="flex items-center gap-2 max-md:col-span-2 max-md:col-start-2 max-md:row-start-3">
        <JobProgress job={job} label={`Progress of ${title}`} className="grow" />
        <span className="figures w-10 shrink-0 text-right text-xs whitespace-nowrap text-soft">{Math.round(job.progress)} %</span>
      </div>
      <div role="cell" className="figures text-right text-sm whitespace-nowrap max-lg:hidden">
        {job.billed_seconds > 0 ? gpuTime(job.billed_seconds) : <span className="text-soft">–</span>}
      </div>
      <div role="cell" className="figures text-right text-sm text-soft max-xl:hidden">
        {money(job.estimated_total_cost)}
      </div>
      <div role="cell" className="figures text-right text-sm max-md:col-start-3 max-md:row-start-2">
        {cost !== null ? (
          money(cost)
        ) : (
          <span className="text-soft">
            <span className="xl:hidden" title="Estimate">
              ≈ {money(job.estimated_total_cost)}
            </span>
            <span className="max-xl:hidden">–</span>
          </span>
        )}
      </div>
      <div role="cell" className="flex justify-end max-md:col-start-3 max-md:row-start-1">
        <Button variant="ghost" size="icon" className="relative z-10 -mr-2 size-8" aria-label={`Edit name and labels of ${title}`} onClick={() => onEdit(job)}>
          <Pencil aria-hidden />
        </Button>
      </div>
    </div>
  );
}

/** A duration that is short enough for a column. */
function gpuTime(seconds: number): string {
  return seconds < 60 ? "< 1 min" : duration(seconds / 3600);
}
