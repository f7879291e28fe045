import { Rocket, Search } from "lucide-react";
import { Link, useSearchParams } from "react-router";

import type { Job, JobStatus } from "@/api/types";
import { PageHeader } from "@/components/page-header";
import { Pager } from "@/components/pager";
import { Empty, LoadingRows, Unloaded } from "@/components/states";
import { JobStatusBadge } from "@/jobs/status-badge";
import { TimeAgo } from "@/components/time-ago";
import { Button } from "@/components/ui/button";
import { Progress } from "@/components/ui/progress";
import { useTrainingJobs } from "@/jobs/queries";
import { cn } from "@/lib/cn";
import { capitalise, money } from "@/lib/format";
import { pageFromSearch } from "@/lib/pagination";

const STATUSES: readonly JobStatus[] = ["queued", "initializing", "running", "completed", "failed", "cancelled"];

export function JobsPage() {
  const [search, setSearch] = useSearchParams();
  const page = pageFromSearch(search);
  const status = STATUSES.find((one) => one === search.get("status")) ?? null;
  const query = useTrainingJobs({ page, limit: 10, status });
  const { data } = query;
  const go = (to: { status?: JobStatus | null; page?: number }) => {
    const chosen = to.status === undefined ? status : to.status;
    setSearch({ ...(chosen ? { status: chosen } : {}), ...(to.page && to.page > 1 ? { page: String(to.page) } : {}) });
  };
  return (
    <>
      <PageHeader
        title="Training jobs"
        actions={
          <Button asChild variant="primary">
            <Link to="/training/configure">
              <Rocket aria-hidden />
              New job
            </Link>
          </Button>
        }
      />
      <div role="group" aria-label="Status" className="-mx-4 mb-4 flex gap-1.5 overflow-x-auto px-4 py-1 sm:mx-0 sm:flex-wrap sm:px-0">
        {[null, ...STATUSES].map((one) => (
          <button
            key={one ?? "all"}
            type="button"
            aria-pressed={status === one}
            onClick={() => go({ status: one, page: 1 })}
            className={cn(
              "h-8 shrink-0 rounded-full border px-3 text-[0.8125rem] font-medium transition-colors",
              status === one
                ? "border-brand bg-brand-soft text-brand"
                : "border-line bg-card text-soft hover:border-line-strong hover:text-ink",
            )}
          >
            {one ? capitalise(one) : "All"}
          </button>
        ))}
      </div>
      <section aria-label="Jobs" aria-busy={query.isFetching} className="panel overflow-hidden">
        {data ? (
          data.jobs.length > 0 ? (
            <JobTable jobs={data.jobs} />
          ) : status || page > 1 ? (
            <Empty
              icon={Search}
              title={status ? `No ${status} job` : "No job on this page"}
              action={<Button onClick={() => go({ status: null, page: 1 })}>Show all jobs</Button>}
            >
              {status ? "Jobs show here while they have this status." : "The list is shorter than that."}
            </Empty>
          ) : (
            <Empty
              icon={Rocket}
              title="No jobs yet"
              action={
                <Button asChild variant="primary">
                  <Link to="/datasets">Choose a dataset</Link>
                </Button>
              }
            >
              Choose a dataset, see what training on it costs, and start.
            </Empty>
          )
        ) : (
          <Unloaded query={query}>
            <LoadingRows noun="jobs" />
          </Unloaded>
        )}
      </section>
      {data && <Pager pagination={data.pagination} noun="jobs" onPage={(to) => go({ page: to })} />}
    </>
  );
}

const COLUMNS = "md:grid md:grid-cols-[minmax(0,1fr)_6.5rem_8rem_6rem_5rem] md:items-center md:gap-4 lg:grid-cols-[minmax(0,1fr)_7.5rem_9rem_9rem_6.5rem]";

function JobTable({ jobs }: { jobs: Job[] }) {
  return (
    <div role="table" aria-label="Jobs">
      <div role="row" className={`hidden border-b border-line bg-sunken/50 px-5 py-2.5 text-xs font-medium text-soft ${COLUMNS}`}>
        <span role="columnheader">Dataset</span>
        <span role="columnheader">Status</span>
        <span role="columnheader">GPUs</span>
        <span role="columnheader">Progress</span>
        <span role="columnheader" className="text-right">
          Cost
        </span>
      </div>
      {jobs.map((job) => (
        <Row key={job.id} job={job} />
      ))}
    </div>
  );
}

function Row({ job }: { job: Job }) {
  const cost = job.final_cost ?? (job.current_cost > 0 ? job.current_cost : null);
  return (
    <div
      role="row"
      className={`relative border-b border-line px-5 py-3.5 transition-colors last:border-0 hover:bg-sunken/60 max-md:grid max-md:grid-cols-2 max-md:gap-x-4 max-md:gap-y-2.5 ${COLUMNS}`}
    >
      <div role="cell" className="min-w-0 max-md:col-span-2">
        <Link
          to={`/training/jobs/${job.id}`}
          className="block truncate font-medium after:absolute after:inset-0 focus-visible:outline-none focus-visible:after:rounded-lg focus-visible:after:outline-2 focus-visible:after:-outline-offset-2 focus-visible:after:outline-ring"
        >
          {job.dataset.name}
        </Link>
        <p className="truncate text-[0.8125rem] text-soft">
          {capitalise(job.preset_id)} · queued <TimeAgo at={job.queued_at} />
        </p>
      </div>
      <div role="cell" className="flex">
        <JobStatusBadge status={job.status} />
      </div>
      <div role="cell" className="figures text-sm max-md:text-right">
        {`${job.gpu_config.count} × ${job.gpu_config.type}`}
      </div>
      <div role="cell" className="flex items-center gap-2.5">
        <Progress
          label={`Progress of the job on ${job.dataset.name}`}
          percent={job.progress}
          className={cn("grow", job.is_final && job.status !== "completed" && "opacity-50")}
        />
        <span className="figures w-9 text-right text-xs text-soft">{Math.round(job.progress)} %</span>
      </div>
      <div role="cell" className="figures text-right text-sm">
        {cost === null ? (
          <span className="text-soft" title="Estimated">
            ≈ {money(job.estimated_total_cost)}
          </span>
        ) : (
          money(cost)
        )}
      </div>
    </div>
  );
}
