import { GitCompareArrows } from "lucide-react";
import { Link, useSearchParams } from "react-router";

import { BackLink } from "@/components/back-link";
import { PageHeader } from "@/components/page-header";
import { Empty, Failed } from "@/components/states";
import { Button } from "@/components/ui/button";
import { Skeleton } from "@/components/ui/skeleton";
import { Configurations } from "@/jobs/compare/configurations";
import { Curves } from "@/jobs/compare/curves";
import { idsFromSearch, MAX_COMPARED, runNames } from "@/jobs/compare/runs";
import { useJobsById } from "@/jobs/queries";

export function ComparePage() {
  const [search] = useSearchParams();
  const { ids, left } = idsFromSearch(search);
  const queries = useJobsById(ids);
  const jobs = queries.flatMap(({ data }) => (data ? [data] : []));
  const missing = ids.filter((_, index) => [400, 404].includes(queries[index]?.error?.status ?? 0));
  const failed = queries.find(({ isError, error, data }) => isError && !data && ![400, 404].includes(error.status));
  const isLoading = queries.some(({ isPending }) => isPending);
  const names = runNames(jobs);
  return (
    <>
      <PageHeader title="Compare jobs" before={<BackLink to="/training/jobs" label="All jobs" />} />
      {(left > 0 || missing.length > 0) && (
        <div role="status" className="mb-4 space-y-1 rounded-xl bg-warn-soft px-4 py-2.5 text-sm text-warn">
          {left > 0 && <p>{`The first ${MAX_COMPARED} jobs are compared; ${left} more in the address ${left === 1 ? "is" : "are"} not.`}</p>}
          {missing.length > 0 && <p className="wrap-anywhere">{`Not found: ${missing.join(", ")}. The address is wrong, or the job was deleted.`}</p>}
        </div>
      )}
      {isLoading ? (
        <div role="status" className="grid gap-4">
          <span className="sr-only">Loading the jobs</span>
          <Skeleton className="h-80 rounded-[0.875rem]" />
          <Skeleton className="h-96 rounded-[0.875rem]" />
        </div>
      ) : failed ? (
        <div className="panel">
          <Failed error={failed.error} onRetry={() => void failed.refetch()} />
        </div>
      ) : jobs.length < 2 ? (
        <div className="panel">
          <Empty
            icon={GitCompareArrows}
            title={jobs.length === 1 ? "One job is not enough" : "No jobs to compare"}
            action={
              <Button asChild variant="primary">
                <Link to="/training/jobs">Go to your jobs</Link>
              </Button>
            }
          >
            Select two or more jobs in the list, then Compare.
          </Empty>
        </div>
      ) : (
        <div className="grid gap-4 *:min-w-0">
          <Curves key={ids.join()} jobs={jobs} names={names} />
          <Configurations jobs={jobs} names={names} />
        </div>
      )}
    </>
  );
}
