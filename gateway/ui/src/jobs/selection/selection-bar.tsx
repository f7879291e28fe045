import { Ban, GitCompareArrows, Trash2, X } from "lucide-react";
import { useState } from "react";
import { useNavigate } from "react-router";

import type { Job } from "@/api/types";
import { openedFrom } from "@/components/back-link";
import { Button } from "@/components/ui/button";
import { compareAddress, MAX_COMPARED } from "@/jobs/compare/runs";
import { count } from "@/lib/format";
import { BatchDialog, type BatchAction } from "./batch-dialog";

type Props = {
  jobs: readonly Job[];
  /** Called for each job that was cancelled or deleted. */
  onDone: (job: Job) => void;
  onClear: () => void;
};

/** The actions for the selected jobs. It floats above the end of the page, so that the layout does not shift. */
export function SelectionBar({ jobs, onDone, onClear }: Props) {
  const [action, setAction] = useState<BatchAction | null>(null);
  const allowed = (one: BatchAction) => jobs.filter((job) => job.allowed_actions.includes(one));
  const cancellable = allowed("cancel").length;
  const deletable = allowed("delete").length;
  const canCompare = jobs.length >= 2 && jobs.length <= MAX_COMPARED;
  const navigate = useNavigate();
  const compare = () => void navigate(compareAddress(jobs.map(({ id }) => id)), { state: openedFrom("/training/jobs") });
  const reasons = [
    canCompare ? null : jobs.length < 2 ? "Select another job to compare." : `At most ${MAX_COMPARED} jobs are compared at once.`,
    cancellable === 0 ? "No selected job is active, so none can be cancelled." : null,
    deletable === 0 ? "No selected job is final, so none can be deleted." : null,
  ].filter((reason) => reason !== null);
  return (
    <>
      {jobs.length > 0 && (
        <section
          aria-label="Selection"
          className="fixed inset-x-4 bottom-4 z-20 mx-auto max-w-2xl rounded-xl border border-line bg-raised px-4 py-2.5 shadow-pop"
        >
          <div className="flex flex-wrap items-center gap-2">
            <p role="status" className="figures grow text-sm font-medium">
              {count(jobs.length)} selected
            </p>
            <Button size="small" variant="primary" disabled={!canCompare} onClick={compare}>
              <GitCompareArrows aria-hidden />
              Compare {count(jobs.length)}
            </Button>
            <Button size="small" disabled={cancellable === 0} onClick={() => setAction("cancel")}>
              <Ban aria-hidden />
              Cancel {count(cancellable)}
            </Button>
            <Button size="small" disabled={deletable === 0} onClick={() => setAction("delete")}>
              <Trash2 aria-hidden />
              Delete {count(deletable)}
            </Button>
            <Button size="small" variant="ghost" aria-label="Clear the selection" onClick={onClear}>
              <X aria-hidden />
              <span className="max-sm:hidden">Clear</span>
            </Button>
          </div>
          {reasons.length > 0 && <p className="mt-1 text-xs text-soft">{reasons.join(" ")}</p>}
        </section>
      )}
      {action && (
        <BatchDialog
          action={action}
          jobs={allowed(action)}
          skipped={jobs.length - allowed(action).length}
          onDone={onDone}
          onClose={() => setAction(null)}
        />
      )}
    </>
  );
}
