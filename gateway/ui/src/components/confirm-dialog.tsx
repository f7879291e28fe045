import { Button } from "./ui/button";
import { Dialog } from "./ui/dialog";

type Props = {
  open: boolean;
  title: string;
  description: string;
  /** Label of the button that confirms. */
  action: string;
  isBusy: boolean;
  onClose: () => void;
  onConfirm: () => void;
};

/** Asks for confirmation before an action that cannot be undone. */
export function ConfirmDialog({ open, title, description, action, isBusy, onClose, onConfirm }: Props) {
  return (
    <Dialog open={open} onOpenChange={(on) => !on && onClose()} title={title} description={description}>
      <div className="flex justify-end gap-2">
        <Button onClick={onClose}>Go back</Button>
        <Button variant="destructive" isBusy={isBusy} disabled={isBusy} onClick={onConfirm}>
          {action}
        </Button>
      </div>
    </Dialog>
  );
}
