import { RotateCcw } from "lucide-react";
import { useId, useState, type SyntheticEvent } from "react";
import { useNavigate } from "react-router";
import { toast } from "sonner";

import type { Job, RetryJobRequest } from "@/api/types";
import { Button } from "@/components/ui/button";
import { Dialog } from "@/components/ui/dialog";
import { Input } from "@/components/ui/input";
import { deleteRequestId, getRequestId } from "@/configure/model/draft";
import { parseNumber } from "@/configure/model/limits";
import { useRetryTrainingJob } from "@/jobs/queries";
import { showError } from "@/lib/error-toast";
import { duration, money } from "@/lib/format";

/** Retries a job that a limit stopped, with a new limit: with the old one it would be stopped again. */
export function RetryWithLimit({ job }: { job: Job }) {
  const [open, setOpen] = useState(false);
  const [text, setText] = useState("");
  const id = useId();
  const retry = useRetryTrainingJob();
  const navigate = useNavigate();
  const isCost = job.status_reason === "cost_limit";
  const oldLimit = isCost ? job.max_cost_usd : (job.max_duration_seconds ?? 0) / 3600;
  const limit = parseNumber(text);
  const isValid = limit === null || (limit > 0 && Number.isFinite(limit));
  const limits = newLimits(job, limit);
  const key = `retry ${job.id} ${JSON.stringify(limits)}`;
  const isBelowEstimate = isCost && limit !== null && limit < job.estimated_total_cost;
  const send = (event: SyntheticEvent) => {
    event.preventDefault();
    if (!isValid || retry.isPending) return;
    retry.mutate({ id: job.id, ...limits, request_id: getRequestId(key) }, {
      onSuccess: (created) => {
        deleteRequestId(key);
        // The page may come back to this job before it has shown the other.
        setOpen(false);
        setText("");
        toast.success("Queued as a new job", { description: `Estimated at ${money(created.estimated_total_cost)}.` });
        void navigate(`/training/jobs/${created.id}`);
      },
      onError: (error) => showError("Not retried", error),
    });
  };
  return (
    <>
      <Button variant="primary" onClick={() => setOpen(true)}>
        <RotateCcw aria-hidden />
        Retry
      </Button>
      <Dialog
        open={open}
        onOpenChange={setOpen}
        title={isCost ? "Retry with another cost limit" : "Retry with another duration limit"}
        description={`The limit of ${isCost ? money(oldLimit ?? 0) : duration(oldLimit ?? 0)} stopped this job. The estimate was ${money(job.estimated_total_cost)}.`}
      >
        <form onSubmit={send}>
          <label htmlFor={id} className="mb-1.5 block text-sm font-medium">
            {isCost ? "New cost limit, $" : "New duration limit, hours"}
          </label>
          <Input
            id={id}
            inputMode="decimal"
            autoComplete="off"
            placeholder="none"
            value={text}
            aria-invalid={!isValid}
            aria-describedby={`${id}-hint`}
            onChange={({ target }) => setText(target.value)}
          />
          <p id={`${id}-hint`} className={isValid ? "mt-1.5 text-[0.8125rem] text-soft" : "mt-1.5 text-[0.8125rem] text-bad"}>
            {!isValid
              ? "Enter a number above 0."
              : isBelowEstimate
                ? `Less than the estimate of ${money(job.estimated_total_cost)}: the job would be stopped before it completes.`
                : "Empty: no limit."}
          </p>
          <div className="mt-6 flex justify-end gap-2">
            <Button onClick={() => setOpen(false)}>Go back</Button>
            <Button variant="primary" type="submit" isBusy={retry.isPending} disabled={!isValid || retry.isPending}>
              Queue a new job
            </Button>
          </div>
        </form>
      </Dialog>
    </>
  );
}

/** The limits of the new job: the new one in place of the one that stopped the job, and the other as it was. */
function newLimits(job: Job, limit: number | null): RetryJobRequest {
  const [cost, seconds] =
    job.status_reason === "cost_limit"
      ? [limit, job.max_duration_seconds]
      : [job.max_cost_usd, limit === null ? null : Math.max(1, Math.round(limit * 3600))];
  return {
    without_old_limits: true,
    ...(cost === null ? {} : { max_cost_usd: cost }),
    ...(seconds === null ? {} : { max_duration_seconds: seconds }),
  };
}
