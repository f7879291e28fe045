import { Slider as Radix } from "radix-ui";

type Props = {
  label: string;
  valueText: string;
  describedBy?: string;
  min: number;
  max: number;
  step: number;
  value: number;
  onChange: (value: number) => void;
};

/** A slider with one thumb. Values are rounded to the step: 0.000021, not 0.000020999. */
export function Slider({ label, valueText, describedBy, min, max, step, value, onChange }: Props) {
  const shown = Math.min(max, Math.max(min, value));
  return (
    <Radix.Root
      className="relative flex h-7 w-full touch-none items-center select-none"
      min={min}
      max={max}
      step={step}
      value={[shown]}
      onValueChange={([moved]) => {
        if (moved !== undefined) onChange(Number((Math.round(moved / step) * step).toPrecision(12)));
      }}
    >
      <Radix.Track className="relative h-1.5 grow rounded-full bg-sunken inset-ring inset-ring-line">
        <Radix.Range className="absolute h-full rounded-full bg-brand" />
      </Radix.Track>
      <Radix.Thumb
        aria-label={label}
        aria-valuetext={valueText}
        aria-describedby={describedBy}
        className="block size-5 cursor-grab rounded-full border-2 border-brand bg-card shadow-sm transition-shadow hover:ring-6 hover:ring-brand/12 active:cursor-grabbing"
      />
    </Radix.Root>
  );
}
