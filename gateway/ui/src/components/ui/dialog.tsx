import { X } from "lucide-react";
import { Dialog as Radix } from "radix-ui";
import type { ReactNode } from "react";

import { cn } from "@/lib/cn";
import { Button } from "./button";

const SIZES = { normal: "max-w-lg", wide: "max-w-2xl", full: "max-w-6xl" } as const;

type Props = {
  open: boolean;
  onOpenChange: (open: boolean) => void;
  title: string;
  description?: ReactNode;
  size?: keyof typeof SIZES;
  /** Whether only its own buttons close it, not a click outside it or Escape. */
  requiresExplicitClose?: boolean;
  children: ReactNode;
};

const prevent = (event: Event) => event.preventDefault();

export function Dialog({ open, onOpenChange, title, description, size = "normal", requiresExplicitClose, children }: Props) {
  return (
    <Radix.Root open={open} onOpenChange={onOpenChange}>
      <Radix.Portal>
        <Radix.Overlay className="fixed inset-0 z-40 bg-[oklch(0.2_0.02_165/45%)] backdrop-blur-[2px] data-[state=open]:animate-[fade-in_150ms]" />
        <Radix.Content
          className={cn(
            "fixed top-1/2 left-1/2 z-50 flex max-h-[85dvh] w-[calc(100vw-2rem)] -translate-x-1/2 -translate-y-1/2 flex-col overflow-hidden rounded-2xl border border-line bg-raised shadow-pop data-[state=open]:animate-[pop-in_150ms]",
            SIZES[size],
          )}
          {...(requiresExplicitClose ? { onInteractOutside: prevent, onEscapeKeyDown: prevent } : {})}
          {...(description ? {} : { "aria-describedby": undefined })}
        >
          <div className="flex items-start justify-between gap-4 px-6 pt-5">
            <div>
              <Radix.Title className="text-lg font-semibold tracking-tight">{title}</Radix.Title>
              {description && <Radix.Description className="mt-1 text-sm text-soft">{description}</Radix.Description>}
            </div>
            <Radix.Close asChild>
              <Button variant="ghost" size="icon" className="-mt-1 -mr-2" aria-label="Close">
                <X aria-hidden />
              </Button>
            </Radix.Close>
          </div>
          <div className="overflow-y-auto px-6 pt-4 pb-6">{children}</div>
        </Radix.Content>
      </Radix.Portal>
    </Radix.Root>
  );
}
