import { Search } from "lucide-react";
import { useEffect, useEffectEvent, useState } from "react";

import { Input } from "@/components/ui/input";
import { useDebouncedValue } from "@/hooks/debounced-value";
import { cn } from "@/lib/cn";

const DELAY_MS = 300;

type Props = {
  label: string;
  placeholder: string;
  /** The current search. */
  value: string;
  className?: string;
  onChange: (value: string) => void;
};

/** A search box. It reports what was typed once typing pauses, and follows a search that changes elsewhere. */
export function SearchBox({ label, placeholder, value, className, onChange }: Props) {
  const [typed, setTyped] = useState(value);
  const [previous, setPrevious] = useState(value);
  const settled = useDebouncedValue(typed.trim(), DELAY_MS);
  if (value !== previous) {
    setPrevious(value);
    // A change from this box is skipped: the user may have typed more since.
    if (value !== settled) setTyped(value);
  }
  const report = useEffectEvent((text: string) => {
    if (text !== value) onChange(text);
  });
  useEffect(() => report(settled), [settled]);
  return (
    <div className={cn("relative", className)}>
      <Search className="pointer-events-none absolute top-1/2 left-3 size-4 -translate-y-1/2 text-soft" aria-hidden />
      <Input
        type="search"
        aria-label={label}
        placeholder={placeholder}
        maxLength={200}
        className="pl-9"
        value={typed}
        onChange={({ target }) => setTyped(target.value)}
      />
    </div>
  );
}
