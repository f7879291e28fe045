import { Button } from "./ui/button";
import { Dialog } from "./ui/dialog";

type Props = {
  open: boolean;
  title: string;
  description: string;
  action: string;
  isBusy: boolean;
  onClose: () => void;
  onYes: () => void;
};

/** Asks before something that cannot be taken back. */
export function Ask({ open, title, description, action, isBusy, onClose, onYes }: Props) {
  return (
    <Dialog open={open} onOpenChange={(on) => !on && onClose()} title={title} description={description}>
      <div className="flex justify-end gap-2">
        <Button onClick={onClose}>Keep it as it is</Button>
        <Button look="danger" isBusy={isBusy} disabled={isBusy} onClick={onYes}>
          {action}
        </Button>
      </div>
    </Dialog>
  );
}
