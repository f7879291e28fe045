import { ChevronRight } from "lucide-react";
import { RadioGroup } from "radix-ui";

import type { Catalogue } from "@/api/types";
import { Select } from "@/components/ui/select";
import { gpuTypeOf, withGpuType, withValue, type Configuration } from "@/configure/model/configuration";
import { capitalise, count, day, money } from "@/lib/format";
import { NumberSlider } from "./number-slider";
import { Section } from "@/components/section";

type Props = { catalogue: Catalogue; configuration: Configuration; onChange: (changed: Configuration) => void };

/** GPU type, provider and number of GPUs. */
export function Hardware({ catalogue, configuration, onChange }: Props) {
  const gpus = configuration.values["gpu_config.count"];
  const isAvailable = gpuTypeOf(catalogue, configuration) !== undefined;
  const isModelType = catalogue.model_gpu_types.some(({ type }) => type === configuration.gpuType);
  return (
    <Section id="hardware" title="Hardware">
      <RadioGroup.Root
        aria-label="GPU type"
        value={configuration.gpuType}
        onValueChange={(gpuType) => onChange(withGpuType(catalogue, configuration, gpuType))}
      >
        <GpuCards types={catalogue.gpu_types} configuration={configuration} />
        {/* Always there, so that selecting a base model does not move what is below. */}
        <details className="group mt-3" open={isModelType || undefined}>
          <summary className="inline-flex list-none items-center gap-1.5 rounded-md text-sm font-medium text-soft hover:text-ink">
            <ChevronRight className="size-4 transition-transform group-open:rotate-90" aria-hidden />
            {catalogue.model_gpu_types.length} more GPU types
            {configuration.baseModel === null && <span className="font-normal">(they need a base model)</span>}
          </summary>
          <div className="mt-3">
            <GpuCards types={catalogue.model_gpu_types} configuration={configuration} disabled={configuration.baseModel === null} />
          </div>
        </details>
      </RadioGroup.Root>
      {!isAvailable && (
        <p role="alert" className="mt-3 text-sm text-bad">
          {isModelType
            ? `${configuration.gpuType} needs a base model. Select one, or another GPU type.`
            : `There is no GPU type “${configuration.gpuType}”. Select another one.`}
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
              : "One GPU. More GPUs train faster, at the same price per GPU-hour."
          }
          value={gpus}
          onChange={(value) => onChange(withValue(configuration, "gpu_config.count", value))}
        />
      </div>
    </Section>
  );
}

type CardsProps = { types: Catalogue["gpu_types"]; configuration: Configuration; disabled?: boolean };

function GpuCards({ types, configuration, disabled = false }: CardsProps) {
  return (
    <div className="grid gap-2 sm:grid-cols-2">
      {types.map((gpu) => (
        <RadioGroup.Item
          key={gpu.type}
          value={gpu.type}
          disabled={disabled}
          aria-label={gpu.name}
          aria-describedby={`gpu-${gpu.type}`}
          className="group flex items-start gap-3 rounded-xl border border-line bg-card px-3.5 py-2.5 text-left transition-colors hover:border-line-strong disabled:cursor-not-allowed disabled:bg-sunken/60 data-[state=checked]:border-brand data-[state=checked]:bg-brand-soft data-[state=checked]:inset-ring data-[state=checked]:inset-ring-brand"
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
              {configuration.baseModel === null && gpu.tokens_per_second > 0 ? `${count(gpu.tokens_per_second)} tok/s` : `${count(gpu.memory_gb)} GB`}
            </span>
          </span>
        </RadioGroup.Item>
      ))}
    </div>
  );
}

/** Value of the select for the catalogue's own price. */
const OWN = "own";

/** The price of a GPU-hour, and a choice of providers where the catalogue has several. */
function Provider({ catalogue, configuration, onChange }: Props) {
  const gpu = gpuTypeOf(catalogue, configuration);
  // The reference estimate uses the catalogue's own price.
  if (!gpu || configuration.baseModel === null) return null;
  const offer = gpu.offers.find(({ provider }) => provider === configuration.provider);
  const source = offer?.source ?? gpu.price_source;
  return (
    <div className="mt-5 flex min-h-10 flex-wrap items-center justify-between gap-x-4 gap-y-2">
      <div className="min-w-0 grow basis-56">
        <p className="text-sm font-medium">Price</p>
        <p className="truncate text-[0.8125rem] leading-snug text-soft" title={source}>
          As of {day(offer?.date ?? gpu.price_date)}, from {source}
        </p>
      </div>
      {gpu.offers.length > 0 && (
        <Select
          label="Provider"
          className="w-72 max-w-full"
          value={configuration.provider ?? OWN}
          onChange={(selected) => onChange({ ...configuration, provider: selected === OWN ? null : selected })}
          options={[
            { value: OWN, label: `Catalogue price, ${money(gpu.price_usd_per_hour)}/h` },
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
