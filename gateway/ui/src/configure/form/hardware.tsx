import { RadioGroup } from "radix-ui";

import type { Catalogue } from "@/api/types";
import { Select } from "@/components/ui/select";
import { gpuTypeOf, gpuTypes, withGpuType, withValue, type Configuration } from "@/configure/model/configuration";
import { capitalise, count, day, money } from "@/lib/format";
import { NumberSlider } from "./number-slider";
import { Section } from "@/components/section";

type Props = { catalogue: Catalogue; configuration: Configuration; onChange: (changed: Configuration) => void };

export function Hardware({ catalogue, configuration, onChange }: Props) {
  const gpus = configuration.values["gpu_config.count"];
  const types = gpuTypes(catalogue, configuration);
  const known = types.some(({ type }) => type === configuration.gpuType);
  return (
    <Section id="hardware" title="Hardware">
      <RadioGroup.Root
        aria-label="GPU type"
        value={configuration.gpuType}
        onValueChange={(gpuType) => onChange(withGpuType(catalogue, configuration, gpuType))}
        className="grid gap-2 sm:grid-cols-2"
      >
        {types.map((gpu) => (
          <RadioGroup.Item
            key={gpu.type}
            value={gpu.type}
            aria-label={gpu.name}
            aria-describedby={`gpu-${gpu.type}`}
            className="group flex items-start gap-3 rounded-xl border border-line bg-card px-3.5 py-2.5 text-left transition-colors hover:border-line-strong data-[state=checked]:border-brand data-[state=checked]:bg-brand-soft data-[state=checked]:inset-ring data-[state=checked]:inset-ring-brand"
          >
            <span
              aria-hidden
              className="mt-0.5 grid size-4 shrink-0 place-items-center rounded-full border border-line-strong group-data-[state=checked]:border-brand group-data-[state=checked]:bg-brand"
            >
              <span className="size-1.5 rounded-full bg-brand-ink opacity-0 group-data-[state=checked]:opacity-100" />
            </span>
            <span className="min-w-0 grow">
              <span className="block text-sm font-medium">{gpu.name}</span>
              <span id={`gpu-${gpu.type}`} className="block text-[0.8125rem] leading-snug text-soft">
                {capitalise(gpu.note)}
                <span className="sr-only">, {money(gpu.price_usd_per_hour)} an hour</span>
              </span>
            </span>
            <span aria-hidden className="figures shrink-0 text-right text-sm">
              <span className="font-medium">{money(gpu.price_usd_per_hour)}</span>
              <span className="text-soft">/h</span>
              <span className="block text-xs text-soft">
                {configuration.baseModel === null ? `${count(gpu.tokens_per_second)} tok/s` : `${count(gpu.memory_gb)} GB`}
              </span>
            </span>
          </RadioGroup.Item>
        ))}
      </RadioGroup.Root>
      {!known && (
        <p role="alert" className="mt-3 text-sm text-bad">
          “{configuration.gpuType}” cannot be chosen here. Choose one of these
          {configuration.baseModel === null && ", or a base model: some GPU types are estimated for those only"}.
        </p>
      )}
      <Provider catalogue={catalogue} configuration={configuration} onChange={onChange} />
      <div className="mt-5">
        <NumberSlider
          catalogue={catalogue}
          field="gpu_config.count"
          label="GPUs"
          hint={
            gpus !== null && gpus > 1 && Number.isInteger(gpus)
              ? `Training will be ${gpus}× faster (approximately)`
              : "One GPU. More of them train faster, at the same price a GPU-hour."
          }
          value={gpus}
          onChange={(value) => onChange(withValue(configuration, "gpu_config.count", value))}
        />
      </div>
    </Section>
  );
}

const OWN = "own";

/** What a GPU costs an hour by whom, and whose price is taken where the catalogue knows of several. */
function Provider({ catalogue, configuration, onChange }: Props) {
  const gpu = gpuTypeOf(catalogue, configuration);
  // Only a forecast takes another price than the catalogue's own.
  if (!gpu || configuration.baseModel === null) return null;
  const taken = gpu.offers.find(({ provider }) => provider === configuration.provider);
  const source = taken?.source ?? gpu.price_source;
  return (
    <div className="mt-5 flex min-h-10 flex-wrap items-center justify-between gap-x-4 gap-y-2">
      <div className="min-w-0 grow basis-56">
        <p className="text-sm font-medium">Price</p>
        <p className="truncate text-[0.8125rem] leading-snug text-soft" title={source}>
          As of {day(taken?.date ?? gpu.price_date)}, from {source}
        </p>
      </div>
      {gpu.offers.length > 0 && (
        <Select
          label="Whose price"
          className="w-72 max-w-full"
          value={configuration.provider ?? OWN}
          onChange={(chosen) => onChange({ ...configuration, provider: chosen === OWN ? null : chosen })}
          options={[
            { value: OWN, label: `This catalogue’s, ${money(gpu.price_usd_per_hour)}/h` },
            ...gpu.offers.map(({ provider, usd_per_hour: price, date }) => ({
              value: provider,
              label: `${provider}, ${money(price)}/h`,
              detail: `as of ${day(date)}`,
            })),
          ]}
        />
      )}
    </div>
  );
}
