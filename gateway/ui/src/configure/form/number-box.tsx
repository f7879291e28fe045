import { useState } from "react";

import { parseNumber } from "@/configure/model/limits";

type Props = {
  id: string;
  label: string;
  value: number | null;
  /** The value as text. */
  text: string;
  isInvalid: boolean;
  describedBy: string;
  placeholder: string | undefined;
  onChange: (value: number | null) => void;
};

/** A label and a text box for a number. Text that is not a number is NaN. */
export function NumberBox({ id, label, value, text, isInvalid, describedBy, placeholder, onChange }: Props) {
  const [typed, setTyped] = useState<string | null>(null);
  // Another control changed the value: it replaces the typed text.
  if (typed !== null && !Object.is(parseNumber(typed), value)) setTyped(null);
  return (
    <div className="flex items-center justify-between gap-3">
      <label htmlFor={id} className="text-sm font-medium">
        {label}
      </label>
      <input
        id={id}
        inputMode="decimal"
        autoComplete="off"
        spellCheck={false}
        value={typed ?? text}
        placeholder={placeholder}
        aria-invalid={isInvalid}
        aria-describedby={describedBy}
        onChange={({ target }) => {
          setTyped(target.value);
          onChange(parseNumber(target.value));
        }}
        onBlur={() => {
          if (!isInvalid) setTyped(null);
        }}
        className="figures h-8 w-20 rounded-md border border-line-strong/70 bg-card px-2 text-right text-sm font-medium transition-colors placeholder:font-normal placeholder:text-soft hover:border-line-strong aria-invalid:border-bad aria-invalid:bg-bad-soft aria-invalid:text-bad"
      />
    </div>
  );
}
