import { ChevronRight } from "lucide-react";

import type { Catalogue } from "@/api/types";
import { Select } from "@/components/ui/select";
import { cn } from "@/lib/cn";
import { withModule, withValue, type Choice, type Choices, type Configuration } from "@/configure/model/configuration";
import { NumberSlider } from "./number-slider";
import { Section } from "@/components/section";

const NONE = "none";
const AUTO = "auto";

const OPTIONS: readonly { choice: Choice; label: string; words: readonly [word: string, label: string][] }[] = [
  { choice: "method", label: "Method", words: [["lora", "LoRA"], ["qlora", "QLoRA, 4 bits"], ["full", "Full fine-tuning"]] },
  { choice: "precision", label: "Precision", words: [["bf16", "bf16"], ["fp16", "fp16"], ["fp8", "fp8"]] },
  { choice: "activation_checkpointing", label: "Activation checkpointing", words: [["true", "On"], ["false", "Off"]] },
  { choice: "packing", label: "Packing", words: [["true", "On"], ["false", "Off"]] },
  { choice: "stack", label: "Software", words: [["plain", "Plain kernels"], ["tuned", "Tuned kernels"]] },
];

type Props = { catalogue: Catalogue; configuration: Configuration; onChange: (changed: Configuration) => void };

/** What is trained. With a base model the estimate is a forecast: a range, memory, and what would make the job fit. */
export function BaseModel({ catalogue, configuration, onChange }: Props) {
  const { baseModel, choices, targetModules } = configuration;
  return (
    <Section
      id="base-model"
      title="Base model"
      aside={
        <Select
          label="Base model"
          className="w-64 max-w-full"
          value={baseModel ?? NONE}
          onChange={(chosen) => onChange({ ...configuration, baseModel: chosen === NONE ? null : chosen })}
          options={[
            { value: NONE, label: "Not named" },
            ...catalogue.base_models.map((model) => ({
              value: model.id,
              label: model.id,
              detail: `${model.params_b} B parameters${model.experts > 1 ? `, ${model.active_params_b} B active` : ""}`,
            })),
            // A link may name a model the way its publisher does: the Estimator knows those names too.
            ...(baseModel === null || catalogue.base_models.some(({ id }) => id === baseModel)
              ? []
              : [{ value: baseModel, label: baseModel }]),
          ]}
        />
      }
    >
      {baseModel === null ? (
        <p className="text-sm text-pretty text-soft">
          Name the model to see how sure the estimate is, whether the job fits into memory, and what the alternatives cost.
        </p>
      ) : (
        <details className="group" open={Object.keys(choices).length + targetModules.length > 0 || undefined}>
          <summary className="inline-flex list-none items-center gap-1.5 rounded-md text-sm font-medium text-soft hover:text-ink">
            <ChevronRight className="size-4 transition-transform group-open:rotate-90" aria-hidden />
            How it is trained
          </summary>
          <div className="mt-4 grid gap-x-8 gap-y-4 sm:grid-cols-2">
            {OPTIONS.map(({ choice, label, words }) => (
              <div key={choice} className="flex min-h-8 items-center justify-between gap-3 self-start">
                <span className="text-sm font-medium">{label}</span>
                <Select
                  label={label}
                  className="h-8 w-40"
                  value={choices[choice] ?? AUTO}
                  onChange={(word) => {
                    const others = Object.entries(choices).filter(([name]) => name !== choice);
                    const chosen = word === AUTO ? others : [...others, [choice, word]];
                    onChange({ ...configuration, choices: Object.fromEntries(chosen) as Choices });
                  }}
                  options={[
                    { value: AUTO, label: "As usual" },
                    ...words.map(([word, said]) => ({ value: word, label: said })),
                  ]}
                />
              </div>
            ))}
            <NumberSlider
              boxOnly
              catalogue={catalogue}
              field="training.sequence_length"
              label="Sequence length"
              placeholder="auto"
              hint="Longer samples are cut. Empty: the longest sample's."
              value={configuration.values["training.sequence_length"]}
              onChange={(value) => onChange(withValue(configuration, "training.sequence_length", value))}
            />
            <NumberSlider
              boxOnly
              catalogue={catalogue}
              field="training.gradient_accumulation"
              label="Gradient accumulation"
              placeholder="auto"
              hint="Batches that are added up before a step."
              value={configuration.values["training.gradient_accumulation"]}
              onChange={(value) => onChange(withValue(configuration, "training.gradient_accumulation", value))}
            />
            <TargetModules catalogue={catalogue} configuration={configuration} onChange={onChange} />
          </div>
        </details>
      )}
    </Section>
  );
}

function TargetModules({ catalogue, configuration, onChange }: Props) {
  const chosen = configuration.targetModules;
  const names = [...new Set([...catalogue.target_modules, ...chosen])];
  return (
    <fieldset className="sm:col-span-2" aria-describedby="target-modules-hint">
      <legend className="text-sm font-medium">Target modules</legend>
      <div className="mt-2 flex flex-wrap gap-1.5">
        {names.map((name) => (
          <label
            key={name}
            className={cn(
              "cursor-pointer rounded-full border px-3 py-1 font-mono text-xs transition-colors has-focus-visible:outline-2 has-focus-visible:outline-offset-2 has-focus-visible:outline-ring",
              chosen.includes(name) ? "border-brand bg-brand-soft text-brand" : "border-line bg-card text-soft hover:border-line-strong hover:text-ink",
            )}
          >
            <input
              type="checkbox"
              className="sr-only"
              checked={chosen.includes(name)}
              onChange={({ target }) => onChange(withModule(configuration, name, target.checked))}
            />
            {name}
          </label>
        ))}
      </div>
      <p id="target-modules-hint" className="mt-1.5 text-[0.8125rem] leading-snug text-soft">
        What gets an adapter: more of it learns more, and takes more memory. None chosen: the attention&rsquo;s.
      </p>
    </fieldset>
  );
}
