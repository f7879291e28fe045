import { ChevronRight } from "lucide-react";

import type { Catalogue } from "@/api/types";
import { Section } from "@/components/section";
import { withValue, type Configuration, type Field } from "@/configure/model/configuration";
import { fieldError } from "@/configure/model/limits";
import { NumberSlider } from "./number-slider";

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
    hint: "Scale of the adapter, often twice the rank. Default: the trainer's.",
  },
  {
    field: "hyperparameters.dropout",
    label: "Dropout",
    hint: "Share of the adapter's inputs dropped at each step, against overfitting. Default: the trainer's.",
  },
];

type Props = { catalogue: Catalogue; configuration: Configuration; onChange: (changed: Configuration) => void };

export function HyperparametersSection({ catalogue, configuration, onChange }: Props) {
  const isInvalid = BOXES.some(({ field }) => fieldError(catalogue, field, configuration.values[field]) !== null);
  return (
    <Section id="hyperparameters" title="Hyperparameters">
      <div className="grid gap-x-8 gap-y-5 sm:grid-cols-2">
        {SLIDERS.map((slider) => (
          <NumberSlider
            key={slider.field}
            {...slider}
            catalogue={catalogue}
            value={configuration.values[slider.field]}
            onChange={(value) => onChange(withValue(configuration, slider.field, value))}
          />
        ))}
      </div>
      <details className="group mt-5 border-t border-line pt-4" open={isInvalid || undefined}>
        <summary className="inline-flex list-none items-center gap-1.5 rounded-md text-sm font-medium text-soft hover:text-ink">
          <ChevronRight className="size-4 transition-transform group-open:rotate-90" aria-hidden />
          Alpha and dropout
        </summary>
        <div className="mt-4 grid gap-x-8 gap-y-5 sm:grid-cols-2">
          {BOXES.map((box) => (
            <NumberSlider
              key={box.field}
              {...box}
              boxOnly
              placeholder="default"
              catalogue={catalogue}
              value={configuration.values[box.field]}
              onChange={(value) => onChange(withValue(configuration, box.field, value))}
            />
          ))}
        </div>
      </details>
    </Section>
  );
}
