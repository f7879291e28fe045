import { cva, type VariantProps } from "class-variance-authority";
import { LoaderCircle } from "lucide-react";
import { Slot } from "radix-ui";
import type { ComponentProps } from "react";

import { cn } from "@/lib/cn";

const buttonClasses = cva(
  "inline-flex select-none items-center justify-center gap-2 rounded-lg font-medium whitespace-nowrap transition-colors duration-150 disabled:cursor-not-allowed aria-disabled:cursor-not-allowed [&_svg]:size-4 [&_svg]:shrink-0",
  {
    variants: {
      variant: {
        primary:
          "bg-brand text-brand-ink shadow-xs hover:bg-brand-strong disabled:bg-sunken disabled:text-soft disabled:shadow-none aria-disabled:bg-sunken aria-disabled:text-soft",
        outline: "border border-line bg-card text-ink shadow-xs hover:border-line-strong hover:bg-sunken disabled:text-soft",
        ghost: "text-soft hover:bg-sunken hover:text-ink",
        destructive: "bg-bad-soft text-bad hover:brightness-97 dark:hover:brightness-115",
        link: "text-brand underline-offset-4 hover:underline",
      },
      size: {
        small: "h-8 px-3 text-[0.8125rem]",
        normal: "h-9.5 px-3.5 text-sm",
        large: "h-11 px-5 text-[0.9375rem]",
        icon: "size-9.5",
        bare: "h-auto p-0 text-sm",
      },
    },
    defaultVariants: { variant: "outline", size: "normal" },
  },
);

type Props = ComponentProps<"button"> & VariantProps<typeof buttonClasses> & { asChild?: boolean; isBusy?: boolean };

export function Button({ className, variant, size, asChild, isBusy, children, ...rest }: Props) {
  const classes = cn(buttonClasses({ variant, size }), className);
  if (asChild) {
    return (
      <Slot.Root className={classes} {...rest}>
        {children}
      </Slot.Root>
    );
  }
  return (
    <button type="button" className={classes} aria-busy={isBusy} {...rest}>
      {isBusy && <LoaderCircle className="animate-spin" aria-hidden />}
      {children}
    </button>
  );
}
