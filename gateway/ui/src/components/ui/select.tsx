import { Check, ChevronDown } from "lucide-react";
import { Select as Radix } from "radix-ui";
import type { ReactNode } from "react";

import { cn } from "@/lib/cn";

type Option = { value: string; label: string; detail?: ReactNode; disabled?: boolean };
type Props = {
  label: string;
  value: string;
  placeholder?: string;
  /** Text of the closed select. Default: the label of the selected option. */
  text?: string;
  options: readonly Option[];
  onChange: (value: string) => void;
  className?: string;
};

export function Select({ label, value, placeholder, text, options, onChange, className }: Props) {
  return (
    <Radix.Root value={value} onValueChange={onChange}>
      <Radix.Trigger
        aria-label={label}
        className={cn(
          "inline-flex h-9.5 items-center justify-between gap-2 rounded-lg border border-line bg-card px-3 text-left text-sm shadow-xs transition-colors hover:border-line-strong data-placeholder:text-soft",
          className,
        )}
      >
        <span className="min-w-0 truncate">
          <Radix.Value placeholder={text ?? placeholder}>{text}</Radix.Value>
        </span>
        <Radix.Icon>
          <ChevronDown className="size-4 text-soft" aria-hidden />
        </Radix.Icon>
      </Radix.Trigger>
      <Radix.Portal>
        <Radix.Content
          position="popper"
          sideOffset={6}
          className="z-50 max-h-80 min-w-(--radix-select-trigger-width) max-w-[calc(100vw-2rem)] overflow-hidden rounded-xl border border-line bg-raised shadow-pop data-[state=open]:animate-[pop-in_120ms]"
        >
          <Radix.Viewport className="p-1">
            {options.map((option) => (
              <Radix.Item
                key={option.value}
                value={option.value}
                disabled={option.disabled ?? false}
                className="flex cursor-pointer items-center gap-2 rounded-lg py-2 pr-3 pl-2 text-sm outline-none select-none data-disabled:cursor-not-allowed data-disabled:text-soft data-highlighted:bg-sunken"
              >
                <span className="flex w-4 shrink-0 justify-center">
                  <Radix.ItemIndicator>
                    <Check className="size-4 text-brand" aria-hidden />
                  </Radix.ItemIndicator>
                </span>
                <span className="min-w-0">
                  <Radix.ItemText>{option.label}</Radix.ItemText>
                  {option.detail && <span className="block text-xs text-soft">{option.detail}</span>}
                </span>
              </Radix.Item>
            ))}
          </Radix.Viewport>
        </Radix.Content>
      </Radix.Portal>
    </Radix.Root>
  );
}
