import { Link } from "react-router";

import type { Dataset } from "@/api/types";
import { Button } from "@/components/ui/button";
import { Dialog } from "@/components/ui/dialog";
import { ValidationErrors } from "./validation-errors";

export function ValidationErrorsDialog({ dataset, onClose }: { dataset: Dataset; onClose: () => void }) {
  return (
    <Dialog
      open
      size="wide"
      onOpenChange={(open) => !open && onClose()}
      title={`Errors in “${dataset.name}”`}
      description="The file was not stored, only an excerpt of its rows. Correct it and upload it again."
    >
      <ValidationErrors dataset={dataset} />
      <div className="mt-5 flex justify-end">
        <Button asChild>
          <Link to={`/datasets/${dataset.id}`}>Show its rows</Link>
        </Button>
      </div>
    </Dialog>
  );
}
