import { useId } from "react";

import type { Catalogue } from "@/api/types";
import { Slider } from "@/components/ui/slider";
import { cn } from "@/lib/cn";
import type { Field } from "@/configure/model/configuration";
import { fieldError, formatValue } from "@/configure/model/limits";
import { NumberBox } from "./number-box";

type Props = {
  catalogue: Catalogue;
  field: Field;
  label: string;
  hint: string;
  value: number | null;
  onChange: (value: number | null) => void;
  /** Whether it has no slider. */
  boxOnly?: boolean;
  placeholder?: string;
};

/** A number with a slider and a text box. The line below them is its hint, or its error. */
export function NumberSlider({ catalogue, field, label, hint, value, onChange, boxOnly, placeholder }: Props) {
  const id = useId();
  const error = fieldError(catalogue, field, value);
  const slider = boxOnly ? undefined : catalogue.sliders.find((one) => one.field === field);
  const beyond =
    slider && error === null && value !== null && (value > slider.max || value < slider.min)
      ? ` Outside the slider’s range, ${formatValue(field, slider.min)} to ${formatValue(field, slider.max)}.`
      : "";
  return (
    <div>
      <NumberBox
        id={id}
        label={label}
        value={value}
        text={formatValue(field, value)}
        isInvalid={error !== null}
        describedBy={`${id}-hint`}
        placeholder={placeholder}
        onChange={onChange}
      />
      {slider && (
        <Slider
          label={label}
          valueText={formatValue(field, value) || "not a number"}
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
        role={error === null ? undefined : "alert"}
        className={cn("text-[0.8125rem] leading-snug", error === null ? "text-soft" : "text-bad", !slider && "mt-1.5")}
      >
        {error ?? hint + beyond}
      </p>
    </div>
  );
}
