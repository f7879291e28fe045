import { toast } from "sonner";

import type { Dataset } from "@/api/types";
import { useDeleteDataset } from "@/hooks/datasets";
import { tellFailed } from "@/lib/failed";
import { Ask } from "./ask";

export function DeleteDialog({ dataset, onClose }: { dataset: Dataset; onClose: () => void }) {
  const remove = useDeleteDataset();
  return (
    <Ask
      open
      title={`Delete “${dataset.name}”?`}
      description="Its file is deleted too. Jobs that trained on it keep its name."
      action="Delete the dataset"
      isBusy={remove.isPending}
      onClose={onClose}
      onYes={() =>
        remove.mutate(dataset.id, {
          onSuccess: () => toast.success("Dataset deleted"),
          onError: (error) => tellFailed("Not deleted", error),
          onSettled: onClose,
        })
      }
    />
  );
}
