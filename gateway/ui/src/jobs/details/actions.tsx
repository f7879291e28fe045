import { Ban, RotateCcw } from "lucide-react";
import { useState } from "react";
import { useNavigate } from "react-router";
import { toast } from "sonner";

import type { Job } from "@/api/types";
import { Button } from "@/components/ui/button";
import { Dialog } from "@/components/ui/dialog";
import { useCancelTrainingJob, useRetryTrainingJob } from "@/jobs/queries";
import { dropRequestId, requestIdOf } from "@/configure/model/draft";
import { showError } from "@/lib/error-toast";
import { money } from "@/lib/format";

/** What the job's owner may do with it now; the service says what that is. */
export function Actions({ job }: { job: Job }) {
  return (
    <>
      {job.allowed_actions.includes("retry") && <Retry job={job} />}
      {job.allowed_actions.includes("cancel") && <Cancel job={job} />}
    </>
  );
}

function Cancel({ job }: { job: Job }) {
  const [asking, setAsking] = useState(false);
  const cancel = useCancelTrainingJob();
  return (
    <>
      <Button variant="destructive" onClick={() => setAsking(true)}>
        <Ban aria-hidden />
        Cancel job
      </Button>
      <Dialog
        open={asking}
        onOpenChange={setAsking}
        title="Cancel this job?"
        description={
          job.status === "queued"
            ? "It leaves the queue. It has cost nothing."
            : `What it has trained so far is lost. The ${money(job.current_cost)} it has cost stay.`
        }
      >
        <div className="flex justify-end gap-2">
          <Button onClick={() => setAsking(false)}>Keep it</Button>
          <Button
            variant="destructive"
            isBusy={cancel.isPending}
            disabled={cancel.isPending}
            onClick={() =>
              cancel.mutate(job.id, {
                onSuccess: () => toast.success("Job cancelled"),
                onError: (error) => showError("Not cancelled", error),
                onSettled: () => setAsking(false),
              })
            }
          >
            Cancel the job
          </Button>
        </div>
      </Dialog>
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
          { id: job.id, requestId: requestIdOf(key) },
          {
            onSuccess: (made) => {
              dropRequestId(key);
              toast.success("Queued again as a new job", { description: `For about ${money(made.estimated_total_cost)}.` });
              void navigate(`/training/jobs/${made.id}`);
            },
            onError: (error) => showError("Not started again", error),
          },
        )
      }
    >
      {!retry.isPending && <RotateCcw aria-hidden />}
      Retry
    </Button>
  );
}
