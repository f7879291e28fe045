import { Copy } from "lucide-react";
import type { ComponentProps, ReactNode } from "react";
import { toast } from "sonner";

import { copyText } from "@/lib/clipboard";
import { Button } from "./button";

type Props = Omit<ComponentProps<typeof Button>, "onClick" | "asChild"> & {
  /** The text, or a function that returns it at the click. */
  text: string | (() => string);
  /** The toast after copying. */
  copied: string;
  /** The toast's second line. */
  description?: string;
  icon?: ReactNode;
};

/** A button that copies a text and shows a toast, which says how to copy it by hand if that fails. */
export function CopyButton({ text, copied, description, icon, children, ...rest }: Props) {
  const copy = () => {
    copyText(typeof text === "string" ? text : text()).then(
      () => toast.success(copied, { description }),
      () => toast.error("Not copied", { description: "The browser does not allow it. Select the text and copy it by hand." }),
    );
  };
  return (
    <Button {...rest} onClick={copy}>
      {icon ?? <Copy aria-hidden />}
      {children}
    </Button>
  );
}
