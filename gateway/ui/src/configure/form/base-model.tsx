import { ChevronRight, TriangleAlert } from "lucide-react";
import { RadioGroup } from "radix-ui";
import { useState } from "react";

import type { Catalogue } from "@/api/types";
import { modelFacts } from "@/components/models/model-facts";
import { ModelPicker } from "@/components/models/model-picker";
import { Section } from "@/components/section";
import { TRAINING_CHOICES } from "@/components/models/training-choices";
import { Select } from "@/components/ui/select";
import { cn } from "@/lib/cn";
import { withModule, withValue, type Choices, type Configuration } from "@/configure/model/configuration";
import { rememberBaseModel } from "@/configure/model/draft";
import { NumberSlider } from "./number-slider";
import { Validation } from "./validation";

/** Value of a select whose option is left to the Estimator. */
const DEFAULT = "default";
/** The target module that stands for all of a model's. */
const ALL_LINEAR = "all-linear";

type Props = { catalogue: Catalogue; configuration: Configuration; onChange: (changed: Configuration) => void };
type SectionProps = Props & {
  /** What a job without a base model trains; null while that is not known. */
  defaultModel: string | null;
};

/** The base model and its training options. With a base model the estimate is a forecast; without one it is rough. */
export function BaseModel({ catalogue, configuration, onChange, defaultModel }: SectionProps) {
  const { baseModel } = configuration;
  const [isChoosing, setChoosing] = useState(false);
  const mode = baseModel !== null || isChoosing ? "model" : "none";
  const model = modelOf(catalogue, baseModel);
  const select = (id: string | null) => {
    rememberBaseModel(id);
    onChange({ ...configuration, baseModel: id });
  };
  return (
    <Section id="base-model" title="Base model">
      <RadioGroup.Root
        aria-labelledby="base-model"
        value={mode}
        onValueChange={(value) => {
          setChoosing(value === "model");
          if (value === "none") select(null);
        }}
        className="grid gap-2 sm:grid-cols-2"
      >
        <Mode value="model" title="A model from the catalogue" detail="Forecast with a range, memory and alternatives." />
        <Mode value="none" title="No base model" detail="Rough estimate: one speed for each GPU type, whatever the model." />
      </RadioGroup.Root>
      {mode === "model" ? (
        <div className="mt-3">
          <ModelPicker label="Base model" models={catalogue.base_models} value={baseModel} onChange={select} />
          {/* Always a line high, so that nothing moves when a model is selected. */}
          <p className="figures mt-1.5 min-h-5 text-[0.8125rem] text-soft">
            {model ? modelFacts(model) : baseModel === null ? "Until you select one, the estimate is rough." : ""}
          </p>
        </div>
      ) : (
        <p className="mt-3 flex items-start gap-2 text-[0.8125rem] text-pretty text-warn">
          <TriangleAlert className="mt-0.5 size-4 shrink-0" aria-hidden />
          The job trains the default model{defaultModel && `, ${defaultModel}`}.
        </p>
      )}
      {baseModel !== null && <TrainingOptions catalogue={catalogue} configuration={configuration} onChange={onChange} />}
    </Section>
  );
}

function Mode({ value, title, detail }: { value: string; title: string; detail: string }) {
  return (
    <RadioGroup.Item
      value={value}
      aria-label={title}
      aria-describedby={`base-model-${value}`}
      className="rounded-xl border border-line bg-card px-3.5 py-2.5 text-left transition-colors hover:border-line-strong data-[state=checked]:border-brand data-[state=checked]:bg-brand-soft data-[state=checked]:inset-ring data-[state=checked]:inset-ring-brand"
    >
      <span className="block text-sm font-medium">{title}</span>
      <span id={`base-model-${value}`} className="block text-[0.8125rem] leading-snug text-soft">
        {detail}
      </span>
    </RadioGroup.Item>
  );
}

function TrainingOptions({ catalogue, configuration, onChange }: Props) {
  const { choices, targetModules, validation } = configuration;
  return (
    <details className="group mt-2" open={Object.keys(choices).length + targetModules.length > 0 || validation !== null || undefined}>
      <summary className="inline-flex list-none items-center gap-1.5 rounded-md text-sm font-medium text-soft hover:text-ink">
        <ChevronRight className="size-4 transition-transform group-open:rotate-90" aria-hidden />
        Training options
      </summary>
      <div className="mt-4 grid gap-x-8 gap-y-4 sm:grid-cols-2">
        {TRAINING_CHOICES.map(({ choice, label, values }) => (
          <div key={choice} className="flex min-h-8 items-center justify-between gap-3 self-start">
            <span className="text-sm font-medium">{label}</span>
            <Select
              label={label}
              className="h-8 w-40"
              value={choices[choice] ?? DEFAULT}
              onChange={(selected) => {
                const others = Object.entries(choices).filter(([name]) => name !== choice);
                const changed = selected === DEFAULT ? others : [...others, [choice, selected]];
                onChange({ ...configuration, choices: Object.fromEntries(changed) as Choices });
              }}
              options={[{ value: DEFAULT, label: "Default" }, ...values.map(([value, text]) => ({ value, label: text }))]}
            />
          </div>
        ))}
        <NumberSlider
          boxOnly
          catalogue={catalogue}
          field="training.sequence_length"
          label="Sequence length"
          placeholder="default"
          hint="In tokens. Longer samples are truncated. Default: the longest sample's."
          value={configuration.values["training.sequence_length"]}
          onChange={(value) => onChange(withValue(configuration, "training.sequence_length", value))}
        />
        <NumberSlider
          boxOnly
          catalogue={catalogue}
          field="training.gradient_accumulation"
          label="Gradient accumulation"
          placeholder="default"
          hint="Batches per optimizer step. Default: 1."
          value={configuration.values["training.gradient_accumulation"]}
          onChange={(value) => onChange(withValue(configuration, "training.gradient_accumulation", value))}
        />
        <Validation configuration={configuration} onChange={onChange} />
        <TargetModules catalogue={catalogue} configuration={configuration} onChange={onChange} />
      </div>
    </details>
  );
}

function TargetModules({ catalogue, configuration, onChange }: Props) {
  const selected = configuration.targetModules;
  const model = modelOf(catalogue, configuration.baseModel);
  const own = catalogue.target_modules.filter((name) => !model || name === ALL_LINEAR || model.target_modules.includes(name));
  // A module that was selected for another model stays, so that it can be taken back.
  const names = [...new Set([...own, ...selected])];
  return (
    <fieldset className="sm:col-span-2" aria-describedby="target-modules-hint">
      <legend className="text-sm font-medium">Target modules</legend>
      <div className="mt-2 flex flex-wrap gap-1.5">
        {names.map((name) => (
          <label
            key={name}
            className={cn(
              "cursor-pointer rounded-full border px-3 py-1 font-mono text-xs transition-colors has-focus-visible:outline-2 has-focus-visible:outline-offset-2 has-focus-visible:outline-ring",
              selected.includes(name) ? "border-brand bg-brand-soft text-brand" : "border-line bg-card text-soft hover:border-line-strong hover:text-ink",
            )}
          >
            <input
              type="checkbox"
              className="sr-only"
              checked={selected.includes(name)}
              onChange={({ target }) => onChange(withModule(configuration, name, target.checked))}
            />
            {name}
          </label>
        ))}
      </div>
      <p id="target-modules-hint" className="mt-1.5 text-[0.8125rem] leading-snug text-soft">
        Modules that get an adapter. More modules learn more and need more memory. Default: the attention&rsquo;s.
      </p>
    </fieldset>
  );
}

function modelOf(catalogue: Catalogue, name: string | null): Catalogue["base_models"][number] | undefined {
  return catalogue.base_models.find(({ id, aliases }) => name !== null && [id, ...aliases].includes(name));
}
