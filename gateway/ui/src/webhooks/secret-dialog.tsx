import { Copy } from "lucide-react";
import { toast } from "sonner";

import { Button } from "@/components/ui/button";
import { Dialog } from "@/components/ui/dialog";
import { Input } from "@/components/ui/input";

/** The only sight of a secret: it closes by its own button, never by a stray click. */
export function SecretDialog({ secret, onClose }: { secret: string; onClose: () => void }) {
  const copy = () => {
    navigator.clipboard.writeText(secret).then(
      () => toast.success("Secret copied"),
      () => toast.error("It could not be copied", { description: "Mark it and copy it by hand." }),
    );
  };
  return (
    <Dialog
      open
      requiresExplicitClose
      onOpenChange={(open) => !open && onClose()}
      title="Keep this secret"
      description="Requests are signed with it, so that your receiver knows that they are ours. It is not shown again."
    >
      <div className="flex gap-2">
        <Input readOnly aria-label="Secret" value={secret} className="font-mono text-xs" onFocus={({ target }) => target.select()} />
        <Button onClick={copy}>
          <Copy aria-hidden />
          Copy
        </Button>
      </div>
      <p className="mt-3 text-sm text-pretty text-soft">
        Signatures are those of the Standard Webhooks specification: any of its libraries checks them.
      </p>
      <div className="mt-6 flex justify-end">
        <Button variant="primary" onClick={onClose}>
          I have kept it
        </Button>
      </div>
    </Dialog>
  );
}
