import { useId, useState, type SyntheticEvent } from "react";
import { toast } from "sonner";

import { explain } from "@/api/errors";
import type { Job } from "@/api/types";
import { Button } from "@/components/ui/button";
import { Dialog } from "@/components/ui/dialog";
import { Input } from "@/components/ui/input";
import { useUpdateTrainingJob } from "@/jobs/queries";
import { LabelInput } from "./label-input";
import { MAX_NAME_LENGTH } from "./labels";

/** Edits the name and the labels of a job. */
export function EditDialog({ job, onClose }: { job: Job; onClose: () => void }) {
  const id = useId();
  const [name, setName] = useState(job.name ?? "");
  const [labels, setLabels] = useState<readonly string[]>(job.labels);
  const update = useUpdateTrainingJob();
  const error = update.error && explain(update.error);
  const save = (event: SyntheticEvent) => {
    event.preventDefault();
    update.mutate(
      { id: job.id, name: name.trim() || null, labels: [...labels] },
      {
        onSuccess: () => {
          toast.success("Name and labels saved");
          onClose();
        },
      },
    );
  };
  return (
    <Dialog open onOpenChange={(open) => !open && onClose()} title="Name and labels">
      <form onSubmit={save}>
        <label htmlFor={`${id}-name`} className="mb-1.5 block text-sm font-medium">
          Name
        </label>
        <Input
          id={`${id}-name`}
          autoComplete="off"
          maxLength={MAX_NAME_LENGTH}
          placeholder={job.dataset.name}
          value={name}
          onChange={({ target }) => setName(target.value)}
        />
        <p className="mt-1.5 text-[0.8125rem] text-soft">Without a name the job is listed by its dataset.</p>
        <label htmlFor={`${id}-labels`} className="mt-4 mb-1.5 block text-sm font-medium">
          Labels
        </label>
        <LabelInput id={`${id}-labels`} labels={labels} addsOnBlur className="h-24 content-start overflow-y-auto" onChange={setLabels} />
        <p className="mt-1.5 text-[0.8125rem] text-soft">Press Enter or a comma after each label.</p>
        {error && (
          <p role="alert" className="mt-4 rounded-lg bg-bad-soft px-3 py-2 text-sm text-bad">
            <strong className="font-medium">{error.title}.</strong> {error.description}
          </p>
        )}
        <div className="mt-6 flex justify-end gap-2">
          <Button onClick={onClose}>Cancel</Button>
          <Button variant="primary" type="submit" isBusy={update.isPending} disabled={update.isPending}>
            Save
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
