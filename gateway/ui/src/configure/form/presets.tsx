import { Crown, SlidersHorizontal, Target, Zap, type LucideIcon } from "lucide-react";
import { RadioGroup } from "radix-ui";

import type { Catalogue, Preset, PresetId } from "@/api/types";
import { Button } from "@/components/ui/button";
import { withPreset, type Configuration } from "@/configure/model/configuration";
import { capitalise, scientific } from "@/lib/format";
import { Section } from "@/components/section";

const ICONS: Readonly<Record<PresetId, LucideIcon>> = {
  fast: Zap,
  balanced: Target,
  quality: Crown,
  custom: SlidersHorizontal,
};

type Props = { catalogue: Catalogue; configuration: Configuration; onChange: (changed: Configuration) => void };

export function Presets({ catalogue, configuration, onChange }: Props) {
  const base = catalogue.presets.find(({ id }) => id === configuration.basedOn);
  const custom = configuration.presetId === "custom";
  return (
    <Section
      id="presets"
      title="Preset"
      aside={
        custom && (
          <p className="flex items-center gap-2 text-sm text-soft">
            <span role="status">Custom, based on {base?.name ?? configuration.basedOn}</span>
            {base && (
              <Button variant="link" size="bare" onClick={() => onChange(withPreset(configuration, base))}>
                Reset
              </Button>
            )}
          </p>
        )
      }
    >
      <RadioGroup.Root
        aria-labelledby="presets"
        value={custom ? "" : configuration.presetId}
        onValueChange={(selected) => {
          const preset = catalogue.presets.find(({ id }) => id === selected);
          if (preset) onChange(withPreset(configuration, preset));
        }}
        className="grid gap-2.5 sm:grid-cols-3"
      >
        {catalogue.presets.map((preset) => (
          <Card key={preset.id} preset={preset} isBase={custom && preset.id === configuration.basedOn} />
        ))}
      </RadioGroup.Root>
    </Section>
  );
}

function Card({ preset, isBase }: { preset: Preset; isBase: boolean }) {
  const Icon = ICONS[preset.id];
  const { learning_rate, batch_size, epochs, rank } = preset.hyperparameters;
  return (
    <RadioGroup.Item
      value={preset.id}
      data-base={isBase}
      aria-label={preset.name}
      aria-describedby={`preset-${preset.id}`}
      className="group rounded-xl border border-line bg-card p-3.5 text-left transition-colors hover:border-line-strong data-[base=true]:border-dashed data-[base=true]:border-brand data-[state=checked]:border-brand data-[state=checked]:bg-brand-soft data-[state=checked]:inset-ring data-[state=checked]:inset-ring-brand"
    >
      <span className="flex items-center gap-2.5">
        <span className="grid size-8 place-items-center rounded-lg bg-sunken text-soft transition-colors group-data-[state=checked]:bg-brand group-data-[state=checked]:text-brand-ink">
          <Icon className="size-4" aria-hidden />
        </span>
        <span className="font-medium">{preset.name}</span>
      </span>
      <span id={`preset-${preset.id}`}>
        <span className="mt-2 block text-[0.8125rem] leading-snug text-soft sm:min-h-9">{capitalise(preset.description)}</span>
        <span className="figures mt-3 grid grid-cols-4 gap-x-3 gap-y-1.5 border-t border-line pt-3 text-[0.8125rem] group-data-[state=checked]:border-brand/25 sm:grid-cols-2">
          <Fact name="Learning rate" short="LR" value={scientific(learning_rate)} />
          <Fact name="Batch" value={batch_size} />
          <Fact name="Epochs" value={epochs} />
          <Fact name="LoRA rank" short="Rank" value={rank} />
        </span>
      </span>
    </RadioGroup.Item>
  );
}

function Fact({ name, short, value }: { name: string; short?: string; value: number | string }) {
  return (
    <span className="flex flex-col sm:block">
      <span className="block text-xs text-soft">
        {short ? (
          <>
            <span className="sm:hidden">{short}</span>
            <span className="max-sm:hidden">{name}</span>
          </>
        ) : (
          name
        )}
      </span>
      <span className="block font-medium">{value}</span>
    </span>
  );
}
