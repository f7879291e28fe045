import { CopyPlus, SearchX } from "lucide-react";
import { Link, useParams } from "react-router";

import type { Job } from "@/api/types";
import { BackLink } from "@/components/back-link";
import { PageHeader } from "@/components/page-header";
import { Empty, Unloaded } from "@/components/states";
import { Button } from "@/components/ui/button";
import { Skeleton } from "@/components/ui/skeleton";
import { duplicateAddress } from "@/configure/model/address";
import { useTitle } from "@/hooks/title";
import { requestOfJob } from "@/jobs/api-code";
import { ApiCodeButton } from "@/jobs/api-code-dialog";
import { ChartsPanel } from "@/jobs/charts/charts-panel";
import { Actions } from "@/jobs/details/actions";
import { ConfigurationPanel } from "@/jobs/details/configuration-panel";
import { CostPanel } from "@/jobs/details/cost-panel";
import { EventsPanel } from "@/jobs/details/events-panel";
import { ProgressPanel } from "@/jobs/details/progress-panel";
import { JobLabels } from "@/jobs/labels/job-labels";
import { jobTitle } from "@/jobs/labels/labels";
import { LogsPanel } from "@/jobs/logs/logs-panel";
import { useTrainingJob } from "@/jobs/queries";
import { ResultPanel } from "@/jobs/result/result-panel";
import { JobStatusBadge } from "@/jobs/status-badge";
import { StaleNotice } from "@/jobs/watch/stale-notice";

export function JobPage() {
  const { id = "" } = useParams();
  const query = useTrainingJob(id);
  useTitle("Training job");
  const isMissing = query.error?.status === 404 || query.error?.status === 400;
  if (query.data) return <JobDetails job={query.data} fetchedAt={query.dataUpdatedAt} />;
  return (
    <div className="panel">
      {isMissing ? (
        <Empty
          isPage
          icon={SearchX}
          title="Job not found"
          action={
            <Button asChild variant="primary">
              <Link to="/training/jobs">Go to your jobs</Link>
            </Button>
          }
        >
          The address is wrong, or the job belongs to another user.
        </Empty>
      ) : (
        <Unloaded query={query}>
          <div role="status" className="space-y-4 p-6">
            <span className="sr-only">Loading the job</span>
            <Skeleton className="h-7 w-64" />
            <Skeleton className="h-4 w-40" />
            <Skeleton className="h-28 w-full" />
          </div>
        </Unloaded>
      )}
    </div>
  );
}

function JobDetails({ job, fetchedAt }: { job: Job; fetchedAt: number }) {
  return (
    <>
      <PageHeader
        title={jobTitle(job)}
        before={<BackLink to="/training/jobs" label="All jobs" />}
        actions={
          <>
            <ApiCodeButton request={requestOfJob(job)} />
            <Button asChild>
              <Link to={duplicateAddress(job)}>
                <CopyPlus aria-hidden />
                Duplicate and edit
              </Link>
            </Button>
            <Actions job={job} />
          </>
        }
      >
        <div className="flex flex-wrap items-center gap-x-3 gap-y-1">
          <JobStatusBadge status={job.status} />
          <span className="font-mono text-xs break-all">{job.id}</span>
          <JobLabels job={job} />
        </div>
      </PageHeader>
      {job.dataset_deleted && (
        <p role="status" className="mb-4 rounded-xl bg-warn-soft px-4 py-2.5 text-sm text-warn">
          {`Its dataset “${job.dataset.name}” was deleted, so the job cannot be retried. “Duplicate and edit” takes its configuration to another dataset.`}
        </p>
      )}
      {!job.is_final && <StaleNotice fetchedAt={fetchedAt} />}
      <div className="grid items-start gap-4 lg:grid-cols-[minmax(0,1fr)_21rem]">
        <div className="grid min-w-0 gap-4 *:min-w-0">
          {job.artifact_size !== null && <ResultPanel job={job} />}
          <ProgressPanel job={job} />
          <ChartsPanel job={job} />
          {job.started_at !== null && <LogsPanel job={job} />}
          <ConfigurationPanel job={job} />
        </div>
        <div className="grid min-w-0 gap-4 *:min-w-0">
          <CostPanel job={job} />
          <EventsPanel job={job} />
        </div>
      </div>
    </>
  );
}
