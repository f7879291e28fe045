import type { Dataset } from "@/api/types";
import { ValidationErrors } from "./validation-errors";
import { Dialog } from "@/components/ui/dialog";

export function ValidationErrorsDialog({ dataset, onClose }: { dataset: Dataset; onClose: () => void }) {
  return (
    <Dialog
      open
      size="wide"
      onOpenChange={(open) => !open && onClose()}
      title={`What is wrong with “${dataset.name}”`}
      description="Nothing of it was kept. Correct these lines and upload the file again."
    >
      <ValidationErrors dataset={dataset} />
    </Dialog>
  );
}
