import { toast } from "sonner";

import type { Dataset } from "@/api/types";
import { useDeleteDataset } from "./queries";
import { showError } from "@/lib/error-toast";
import { ConfirmDialog } from "@/components/confirm-dialog";

export function DeleteDialog({ dataset, onClose }: { dataset: Dataset; onClose: () => void }) {
  const remove = useDeleteDataset();
  return (
    <ConfirmDialog
      open
      title={`Delete “${dataset.name}”?`}
      description="Its file is deleted too. Jobs that used it keep its name."
      action="Delete the dataset"
      isBusy={remove.isPending}
      onClose={onClose}
      onConfirm={() =>
        remove.mutate(dataset.id, {
          onSuccess: () => toast.success("Dataset deleted"),
          onError: (error) => showError("Not deleted", error),
          onSettled: onClose,
        })
      }
    />
  );
}
