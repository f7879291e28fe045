import { Ban, RotateCcw } from "lucide-react";
import { useState } from "react";
import { useNavigate } from "react-router";
import { toast } from "sonner";

import type { Job } from "@/api/types";
import { ConfirmDialog } from "@/components/confirm-dialog";
import { Button } from "@/components/ui/button";
import { deleteRequestId, getRequestId } from "@/configure/model/draft";
import { useCancelTrainingJob, useRetryTrainingJob } from "@/jobs/queries";
import { showError } from "@/lib/error-toast";
import { money } from "@/lib/format";
import { RetryWithLimit } from "./retry-with-limit";

/** The actions that the service allows on a job in its present state. */
export function Actions({ job }: { job: Job }) {
  const isStoppedByLimit = job.status_reason === "cost_limit" || job.status_reason === "duration_limit";
  return (
    <>
      {job.allowed_actions.includes("retry") && (isStoppedByLimit ? <RetryWithLimit job={job} /> : <Retry job={job} />)}
      {job.allowed_actions.includes("cancel") && <Cancel job={job} />}
    </>
  );
}

function Cancel({ job }: { job: Job }) {
  const [isAsking, setAsking] = useState(false);
  const cancel = useCancelTrainingJob();
  return (
    <>
      <Button variant="destructive" onClick={() => setAsking(true)}>
        <Ban aria-hidden />
        Cancel job
      </Button>
      <ConfirmDialog
        open={isAsking}
        title="Cancel this job?"
        description={
          job.status === "queued"
            ? "It leaves the queue. Nothing was billed."
            : `Its training so far is lost. ${money(job.current_cost)} so far is billed.`
        }
        action="Cancel the job"
        isBusy={cancel.isPending}
        onClose={() => setAsking(false)}
        onConfirm={() =>
          cancel.mutate(job.id, {
            onSuccess: () => toast.success("Job cancelled"),
            onError: (error) => showError("Not cancelled", error),
            onSettled: () => setAsking(false),
          })
        }
      />
    </>
  );
}

function Retry({ job }: { job: Job }) {
  const retry = useRetryTrainingJob();
  const navigate = useNavigate();
  const key = `retry ${job.id}`;
  return (
    <Button
      variant="primary"
      isBusy={retry.isPending}
      disabled={retry.isPending}
      onClick={() =>
        retry.mutate(
          { id: job.id, request_id: getRequestId(key) },
          {
            onSuccess: (created) => {
              deleteRequestId(key);
              toast.success("Queued as a new job", { description: `Estimated at ${money(created.estimated_total_cost)}.` });
              void navigate(`/training/jobs/${created.id}`);
            },
            onError: (error) => showError("Not retried", error),
          },
        )
      }
    >
      {!retry.isPending && <RotateCcw aria-hidden />}
      Retry
    </Button>
  );
}
