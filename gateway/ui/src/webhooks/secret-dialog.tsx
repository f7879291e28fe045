import { CopyButton } from "@/components/copy-button";
import { Button } from "@/components/ui/button";
import { Dialog } from "@/components/ui/dialog";
import { Input } from "@/components/ui/input";

/** Shows a secret, which is shown only once. Only its own buttons close it. */
export function SecretDialog({ secret, onClose }: { secret: string; onClose: () => void }) {
  return (
    <Dialog
      open
      requiresExplicitClose
      onOpenChange={(open) => !open && onClose()}
      title="Save this secret"
      description="Your receiver verifies the signature of requests with it. It is not shown again."
    >
      <div className="flex gap-2">
        <Input readOnly aria-label="Secret" value={secret} className="font-mono text-xs" onFocus={({ target }) => target.select()} />
        <CopyButton text={secret} copied="Secret copied">
          Copy
        </CopyButton>
      </div>
      <p className="mt-3 text-sm text-pretty text-soft">
        Signatures follow the Standard Webhooks specification, which has libraries for many languages.
      </p>
      <div className="mt-6 flex justify-end">
        <Button variant="primary" onClick={onClose}>
          I have saved it
        </Button>
      </div>
    </Dialog>
  );
}
