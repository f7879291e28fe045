import { ArrowLeft, CopyPlus, SearchX, Terminal } from "lucide-react";
import { Link, useParams } from "react-router";
import { toast } from "sonner";

import type { Job } from "@/api/types";
import { PageHeader } from "@/components/page-header";
import { Empty, Unloaded } from "@/components/states";
import { JobStatusBadge } from "@/jobs/status-badge";
import { Button } from "@/components/ui/button";
import { Skeleton } from "@/components/ui/skeleton";
import { useTitle } from "@/hooks/title";
import { useTrainingJob } from "@/jobs/queries";
import { Actions } from "@/jobs/details/actions";
import { CostPanel } from "@/jobs/details/cost-panel";
import { asCurl } from "@/jobs/details/curl";
import { CurvesPanel } from "@/jobs/details/curves-panel";
import { EventsPanel } from "@/jobs/details/events-panel";
import { FactsPanel } from "@/jobs/details/configuration-panel";
import { ProgressPanel } from "@/jobs/details/progress-panel";
import { duplicateOf } from "@/configure/model/configuration";

export function JobPage() {
  const { id = "" } = useParams();
  const query = useTrainingJob(id);
  useTitle("Training job");
  const notThere = query.error?.status === 404 || query.error?.status === 400;
  if (query.data) return <Shown job={query.data} />;
  return (
    <div className="panel">
      {notThere ? (
        <Empty
          isPage
          icon={SearchX}
          title="There is no such job"
          action={
            <Button asChild variant="primary">
              <Link to="/training/jobs">See your jobs</Link>
            </Button>
          }
        >
          The address may be mistyped, or the job is somebody else&rsquo;s.
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

function Shown({ job }: { job: Job }) {
  const copyCurl = () => {
    navigator.clipboard.writeText(asCurl(job, window.location.origin)).then(
      () => toast.success("Copied", { description: "Set TOKEN to an access token, then paste it into a terminal." }),
      () => toast.error("It could not be copied", { description: "Allow this page to use the clipboard." }),
    );
  };
  return (
    <>
      <PageHeader
        title={job.dataset.name}
        before={
          <Button asChild variant="ghost" size="icon" className="-ml-2 shrink-0">
            <Link to="/training/jobs" aria-label="All jobs">
              <ArrowLeft aria-hidden />
            </Link>
          </Button>
        }
        actions={
          <>
            <Button onClick={copyCurl}>
              <Terminal aria-hidden />
              Copy as curl
            </Button>
            <Button asChild>
              <Link to={duplicateOf(job)}>
                <CopyPlus aria-hidden />
                Duplicate and edit
              </Link>
            </Button>
            <Actions job={job} />
          </>
        }
      >
        <span className="flex flex-wrap items-center gap-x-3 gap-y-1">
          <JobStatusBadge status={job.status} />
          <span className="font-mono text-xs break-all">{job.id}</span>
        </span>
      </PageHeader>
      <div className="grid items-start gap-4 lg:grid-cols-[minmax(0,1fr)_21rem]">
        <div className="grid gap-4">
          <ProgressPanel job={job} />
          <CurvesPanel job={job} />
          <FactsPanel job={job} />
        </div>
        <div className="grid gap-4">
          <CostPanel job={job} />
          <EventsPanel job={job} />
        </div>
      </div>
    </>
  );
}
