import { useState } from "react";

import { parse } from "@/configure/model/configuration";

type Props = {
  id: string;
  label: string;
  value: number | null;
  /** The value as text. */
  shown: string;
  wrong: boolean;
  describedBy: string;
  placeholder: string | undefined;
  onChange: (value: number | null) => void;
};

/** A label and a box for a number. It takes whatever is typed: what is no number is NaN. */
export function NumberBox({ id, label, value, shown, wrong, describedBy, placeholder, onChange }: Props) {
  const [typed, setTyped] = useState<string | null>(null);
  // A preset, a slider or a draft set another value: it shows, in place of what was typed.
  if (typed !== null && !Object.is(parse(typed), value)) setTyped(null);
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
        value={typed ?? shown}
        placeholder={placeholder}
        aria-invalid={wrong}
        aria-describedby={describedBy}
        onChange={({ target }) => {
          setTyped(target.value);
          onChange(parse(target.value));
        }}
        onBlur={() => {
          if (!wrong) setTyped(null);
        }}
        className="figures h-8 w-20 rounded-md border border-line-strong/70 bg-card px-2 text-right text-sm font-medium transition-colors placeholder:font-normal placeholder:text-soft hover:border-line-strong aria-invalid:border-bad aria-invalid:bg-bad-soft aria-invalid:text-bad"
      />
    </div>
  );
}
