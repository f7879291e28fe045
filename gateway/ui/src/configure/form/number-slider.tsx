import { useId } from "react";

import type { Catalogue } from "@/api/types";
import { Slider } from "@/components/ui/slider";
import { cn } from "@/lib/cn";
import { fault, plain, type Field } from "@/configure/model/configuration";
import { NumberBox } from "./number-box";

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
  const wrong = fault(catalogue, field, value);
  const slider = boxOnly ? undefined : catalogue.sliders.find((one) => one.field === field);
  const beyond =
    slider && wrong === null && value !== null && (value > slider.max || value < slider.min)
      ? ` Beyond the slider, which goes from ${plain(field, slider.min)} to ${plain(field, slider.max)}.`
      : "";
  return (
    <div>
      <NumberBox
        id={id}
        label={label}
        value={value}
        shown={plain(field, value)}
        wrong={wrong !== null}
        describedBy={`${id}-hint`}
        placeholder={placeholder}
        onChange={onChange}
      />
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
