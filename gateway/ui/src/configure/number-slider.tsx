import { useId, useState } from "react";

import type { Catalogue } from "@/api/types";
import { Slider } from "@/components/ui/slider";
import { cn } from "@/lib/cn";
import { fault, parse, plain, type Field } from "@/lib/configuration";

type Props = {
  catalogue: Catalogue;
  field: Field;
  label: string;
  hint: string;
  value: number | null;
  onChange: (value: number | null) => void;
  /** Only the box: for values that the catalogue has no slider for. */
  boxOnly?: boolean;
  placeholder?: string;
};

/** A number with a slider and a box. The box takes whatever is typed and says what is wrong with it. */
export function NumberSlider({ catalogue, field, label, hint, value, onChange, boxOnly, placeholder }: Props) {
  const id = useId();
  const [typed, setTyped] = useState<string | null>(null);
  // A preset, the slider or a draft set another value: it shows, in place of what was typed.
  if (typed !== null && !Object.is(parse(typed), value)) setTyped(null);
  const wrong = fault(catalogue, field, value);
  const slider = boxOnly ? undefined : catalogue.sliders.find((one) => one.field === field);
  const beyond =
    slider && wrong === null && value !== null && (value > slider.max || value < slider.min)
      ? ` Beyond the slider, which goes from ${plain(field, slider.min)} to ${plain(field, slider.max)}.`
      : "";
  return (
    <div>
      <div className="flex items-center justify-between gap-3">
        <label htmlFor={id} className="text-sm font-medium">
          {label}
        </label>
        <input
          id={id}
          inputMode="decimal"
          autoComplete="off"
          spellCheck={false}
          value={typed ?? plain(field, value)}
          placeholder={placeholder}
          aria-invalid={wrong !== null}
          aria-describedby={`${id}-hint`}
          onChange={({ target }) => {
            setTyped(target.value);
            onChange(parse(target.value));
          }}
          onBlur={() => {
            if (wrong === null) setTyped(null);
          }}
          className="figures h-8 w-20 rounded-md border border-line-strong/70 bg-card px-2 text-right text-sm font-medium transition-colors placeholder:font-normal placeholder:text-soft hover:border-line-strong aria-invalid:border-bad aria-invalid:bg-bad-soft aria-invalid:text-bad"
        />
      </div>
      {slider && (
        <Slider
          label={label}
          valueText={plain(field, value) || "no number"}
          describedBy={`${id}-hint`}
          min={slider.min}
          max={slider.max}
          step={slider.step}
          value={value === null || Number.isNaN(value) ? slider.min : value}
          onChange={onChange}
        />
      )}
      <p
        id={`${id}-hint`}
        role={wrong === null ? undefined : "alert"}
        className={cn("text-[0.8125rem] leading-snug", wrong === null ? "text-soft" : "text-bad", !slider && "mt-1.5")}
      >
        {wrong ?? hint + beyond}
      </p>
    </div>
  );
}
