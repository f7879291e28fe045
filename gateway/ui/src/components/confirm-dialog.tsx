import { Button } from "@/components/ui/button";
import { Dialog } from "@/components/ui/dialog";

type Props = {
  open: boolean;
  title: string;
  description: string;
  action: string;
  isBusy: boolean;
  onClose: () => void;
  onConfirm: () => void;
};

/** Asks before something that cannot be taken back. */
export function ConfirmDialog({ open, title, description, action, isBusy, onClose, onConfirm }: Props) {
  return (
    <Dialog open={open} onOpenChange={(on) => !on && onClose()} title={title} description={description}>
      <div className="flex justify-end gap-2">
        <Button onClick={onClose}>Keep it as it is</Button>
        <Button variant="destructive" isBusy={isBusy} disabled={isBusy} onClick={onConfirm}>
          {action}
        </Button>
      </div>
    </Dialog>
  );
}
