import type { ReactNode } from "react";

import { CopyButton } from "./ui/copy-button";
import { Button } from "./ui/button";
import { Dialog } from "./ui/dialog";
import { Input } from "./ui/input";

type Props = {
  title: string;
  description: string;
  /** Name of the secret: "Secret", "Key". */
  label: string;
  secret: string;
  children?: ReactNode;
  onClose: () => void;
};

/** Shows a secret, which is shown only once. Only its own buttons close it. */
export function SecretDialog({ title, description, label, secret, children, onClose }: Props) {
  return (
    <Dialog open requiresExplicitClose onOpenChange={(open) => !open && onClose()} title={title} description={description}>
      <div className="flex gap-2">
        <Input readOnly aria-label={label} value={secret} className="font-mono text-xs" onFocus={({ target }) => target.select()} />
        <CopyButton text={secret} copied={`${label} copied`}>
          Copy
        </CopyButton>
      </div>
      {children}
      <div className="mt-6 flex justify-end">
        <Button variant="primary" onClick={onClose}>
          I have saved it
        </Button>
      </div>
    </Dialog>
  );
}
