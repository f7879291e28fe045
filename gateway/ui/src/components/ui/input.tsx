import type { ComponentProps } from "react";

import { cn } from "@/lib/cn";

export function Input({ className, ...rest }: ComponentProps<"input">) {
  return (
    <input
      className={cn(
        "h-9.5 w-full rounded-lg border border-line-strong/70 bg-card px-3 text-sm shadow-xs transition-colors placeholder:text-soft hover:border-line-strong aria-invalid:border-bad aria-invalid:bg-bad-soft",
        className,
      )}
      {...rest}
    />
  );
}
