import { useQueryClient } from "@tanstack/react-query";
import { useRef, useState } from "react";
import { toast } from "sonner";

import { client, dataOf } from "@/api/client";
import { explain } from "@/api/errors";
import type { Job } from "@/api/types";
import { Button } from "@/components/ui/button";
import { Dialog } from "@/components/ui/dialog";
import { Progress } from "@/components/ui/progress";
import { jobTitle } from "@/jobs/labels/labels";
import { count, money } from "@/lib/format";
import { runBatch, type Failure } from "./batch";

export type BatchAction = "cancel" | "delete";

const change = ({ id }: Job, action: BatchAction): Promise<unknown> => {
  const params = { params: { path: { id } } };
  return action === "cancel" ? dataOf(client.POST("/api/jobs/{id}/cancel", params)) : dataOf(client.DELETE("/api/jobs/{id}", params));
};

const jobsOf = (number: number) => (number === 1 ? "1 job" : `${count(number)} jobs`);

const WORDS = {
  cancel: { title: "Cancel", running: "Cancelling", done: "cancelled", failed: "not cancelled" },
  delete: { title: "Delete", running: "Deleting", done: "deleted", failed: "not deleted" },
} as const;

type Props = {
  action: BatchAction;
  /** The jobs that the action is allowed on. */
  jobs: readonly Job[];
  /** Selected jobs that it is not allowed on. */
  skipped: number;
  /** Called for each job that was changed. */
  onDone: (job: Job) => void;
  onClose: () => void;
};

type State = { step: "asking" } | { step: "running"; finished: number } | { step: "failed"; failures: readonly Failure[]; finished: number };

/** Cancels or deletes jobs: asks for confirmation, shows the progress, and then each job that failed with the reason. */
export function BatchDialog({ action, jobs: allowed, skipped, onDone, onClose }: Props) {
  // The jobs when the dialog opened: the selection loses each job that is done.
  const [jobs] = useState(allowed);
  const [state, setState] = useState<State>({ step: "asking" });
  const stop = useRef<AbortController | null>(null);
  const queries = useQueryClient();
  const words = WORDS[action];
  const run = async () => {
    const controller = new AbortController();
    stop.current = controller;
    let finished = 0;
    setState({ step: "running", finished });
    const failures = await runBatch(
      jobs,
      (job) => change(job, action),
      (job, error) => {
        finished += 1;
        setState({ step: "running", finished });
        if (error === null) onDone(job);
      },
      controller.signal,
    );
    await queries.invalidateQueries({ queryKey: ["jobs"] });
    if (finished > failures.length) toast.success(`${jobsOf(finished - failures.length)} ${words.done}`);
    if (failures.length > 0) setState({ step: "failed", failures, finished });
    else onClose();
  };
  const isRunning = state.step === "running";
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && !isRunning && onClose()}
      requiresExplicitClose={isRunning}
      title={state.step === "failed" ? `${jobsOf(state.failures.length)} ${words.failed}` : `${words.title} ${jobsOf(jobs.length)}?`}
      description={state.step === "failed" ? `${jobsOf(state.finished - state.failures.length)} ${words.done}.` : description(action, jobs, skipped)}
    >
      {state.step === "failed" ? (
        <JobList label={`Jobs that were ${words.failed}`}>
          {state.failures.map(({ job, error }) => (
            <li key={job.id} className="py-1.5">
              <span className="block truncate font-medium">{jobTitle(job)}</span>
              <span className="block text-[0.8125rem] wrap-anywhere text-bad">{reasonOf(error)}</span>
            </li>
          ))}
        </JobList>
      ) : (
        <JobList label="Jobs">
          {jobs.map((job) => (
            <li key={job.id} className="truncate py-1">
              {jobTitle(job)}
            </li>
          ))}
        </JobList>
      )}
      <div role="status" className="mt-4 min-h-10 text-sm text-soft">
        {isRunning && (
          <>
            <Progress label={words.running} percent={(state.finished / jobs.length) * 100} className="h-2" />
            <p className="figures mt-2">
              {words.running}: {count(state.finished)} of {count(jobs.length)}
            </p>
          </>
        )}
      </div>
      <div className="mt-2 flex justify-end gap-2">
        {state.step === "asking" && (
          <>
            <Button onClick={onClose}>Go back</Button>
            <Button variant="destructive" onClick={() => void run()}>
              {words.title} {jobsOf(jobs.length)}
            </Button>
          </>
        )}
        {isRunning && <Button onClick={() => stop.current?.abort()}>Stop</Button>}
        {state.step === "failed" && (
          <Button variant="primary" onClick={onClose}>
            Close
          </Button>
        )}
      </div>
    </Dialog>
  );
}

function description(action: BatchAction, jobs: readonly Job[], skipped: number): string {
  const cost = jobs.reduce((sum, job) => sum + job.current_cost, 0);
  const effect =
    action === "delete"
      ? "They leave every list, with their results. What they cost stays recorded."
      : `Their training so far is lost. ${money(cost)} so far is billed.`;
  if (skipped === 0) return effect;
  const state = action === "delete" ? "not final yet" : "final already";
  return `${effect} ${jobsOf(skipped)} of the selection ${skipped === 1 ? "is" : "are"} ${state} and not included.`;
}

function reasonOf(error: unknown): string {
  const { title, description: advice } = explain(error);
  return advice ? `${title}. ${advice}` : title;
}

function JobList({ label, children }: { label: string; children: React.ReactNode }) {
  return (
    // A scrolling list needs a tab stop, so that the keyboard can scroll it.
    <ul tabIndex={0} aria-label={label} className="max-h-52 divide-y divide-line overflow-y-auto rounded-lg border border-line px-3 py-1 text-sm">
      {children}
    </ul>
  );
}
