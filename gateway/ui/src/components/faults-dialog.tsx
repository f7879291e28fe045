import type { Dataset } from "@/api/types";
import { Faults } from "./faults";
import { Dialog } from "./ui/dialog";

export function FaultsDialog({ dataset, onClose }: { dataset: Dataset; onClose: () => void }) {
  return (
    <Dialog
      open
      wide
      onOpenChange={(open) => !open && onClose()}
      title={`What is wrong with “${dataset.name}”`}
      description="Nothing of it was kept. Correct these lines and upload the file again."
    >
      <Faults dataset={dataset} />
    </Dialog>
  );
}
