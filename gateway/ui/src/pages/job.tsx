import { ArrowLeft, CopyPlus, SearchX, Terminal } from "lucide-react";
import { Link, useParams } from "react-router";
import { toast } from "sonner";

import type { Job } from "@/api/types";
import { PageHeader } from "@/components/page-header";
import { Empty, Unloaded } from "@/components/states";
import { JobBadge } from "@/components/status";
import { Button } from "@/components/ui/button";
import { Skeleton } from "@/components/ui/skeleton";
import { useTitle } from "@/hooks/title";
import { useTrainingJob } from "@/hooks/jobs";
import { Actions } from "@/job/actions";
import { CostPanel } from "@/job/cost-panel";
import { asCurl } from "@/job/curl";
import { CurvesPanel } from "@/job/curves-panel";
import { EventsPanel } from "@/job/events-panel";
import { FactsPanel } from "@/job/facts-panel";
import { ProgressPanel } from "@/job/progress-panel";
import { duplicateOf } from "@/lib/configuration";

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
            <Button asChild look="primary">
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
          <Button asChild look="quiet" size="icon" className="-ml-2 shrink-0">
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
          <JobBadge status={job.status} />
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
