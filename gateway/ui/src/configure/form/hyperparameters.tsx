import { ChevronRight } from "lucide-react";

import type { Catalogue } from "@/api/types";
import { fault, withValue, type Configuration, type Field } from "@/configure/model/configuration";
import { NumberSlider } from "./number-slider";
import { Section } from "@/components/section";

const SLIDERS: readonly { field: Field; label: string; hint: string }[] = [
  {
    field: "hyperparameters.learning_rate",
    label: "Learning rate",
    hint: "Lower is more stable; higher converges faster and is riskier.",
  },
  {
    field: "hyperparameters.batch_size",
    label: "Batch size",
    hint: "Larger is faster, but takes more memory.",
  },
  {
    field: "hyperparameters.epochs",
    label: "Epochs",
    hint: "More passes learn better, with diminishing returns.",
  },
  {
    field: "hyperparameters.rank",
    label: "LoRA rank",
    hint: "Higher is a more expressive adapter, and a larger model.",
  },
];

const BOXES: readonly { field: Field; label: string; hint: string }[] = [
  {
    field: "hyperparameters.alpha",
    label: "LoRA alpha",
    hint: "Weight of the adapter; twice the rank is usual. Empty: the trainer decides.",
  },
  {
    field: "hyperparameters.dropout",
    label: "Dropout",
    hint: "Share of the adapter left out at each step, against overfitting. Empty: the trainer decides.",
  },
];

type Props = { catalogue: Catalogue; configuration: Configuration; onChange: (changed: Configuration) => void };

export function HyperparametersSection({ catalogue, configuration, onChange }: Props) {
  const wrong = BOXES.some(({ field }) => fault(catalogue, field, configuration.values[field]) !== null);
  return (
    <Section id="hyperparameters" title="Hyperparameters">
      <div className="grid gap-x-8 gap-y-5 sm:grid-cols-2">
        {SLIDERS.map((one) => (
          <NumberSlider
            key={one.field}
            {...one}
            catalogue={catalogue}
            value={configuration.values[one.field]}
            onChange={(value) => onChange(withValue(configuration, one.field, value))}
          />
        ))}
      </div>
      <details className="group mt-5 border-t border-line pt-4" open={wrong || undefined}>
        <summary className="inline-flex list-none items-center gap-1.5 rounded-md text-sm font-medium text-soft hover:text-ink">
          <ChevronRight className="size-4 transition-transform group-open:rotate-90" aria-hidden />
          Alpha and dropout
        </summary>
        <div className="mt-4 grid gap-x-8 gap-y-5 sm:grid-cols-2">
          {BOXES.map((one) => (
            <NumberSlider
              key={one.field}
              {...one}
              boxOnly
              placeholder="auto"
              catalogue={catalogue}
              value={configuration.values[one.field]}
              onChange={(value) => onChange(withValue(configuration, one.field, value))}
            />
          ))}
        </div>
      </details>
    </Section>
  );
}
