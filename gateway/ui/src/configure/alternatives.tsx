import { ChartScatter, Table2 } from "lucide-react";
import { useState } from "react";

import { explain } from "@/api/errors";
import type { Catalogue, ComparisonPoint, EstimateRequest } from "@/api/types";
import { Button } from "@/components/ui/button";
import { Skeleton } from "@/components/ui/skeleton";
import { useComparison } from "@/hooks/alternatives";
import { cn } from "@/lib/cn";
import { gpuTypes, withPreset, withValue, type Configuration } from "@/lib/configuration";
import { capitalise, duration, money } from "@/lib/format";
import { ParetoPlot } from "./pareto-plot";
import { Section } from "./section";

const COUNTS = [1, 2, 4, 8];

type Props = {
  catalogue: Catalogue;
  configuration: Configuration;
  asked: EstimateRequest | null;
  onChange: (changed: Configuration) => void;
};

/** What the same job costs, and how long it takes, on everything there is. */
export function Alternatives({ catalogue, configuration, asked, onChange }: Props) {
  const [open, setOpen] = useState(false);
  const [asTable, setAsTable] = useState(false);
  const custom = configuration.presetId === "custom";
  const count = configuration.values["gpu_config.count"];
  const query = useComparison(
    open && asked
      ? {
          dataset_id: asked.dataset_id,
          gpu_types: gpuTypes(catalogue, configuration).map(({ type }) => type),
          gpu_counts: count === null || COUNTS.includes(count) ? COUNTS : [...COUNTS, count].sort((one, other) => one - other),
          preset_ids: [...catalogue.presets.map(({ id }) => id), ...(custom ? (["custom"] as const) : [])],
          ...(custom ? { hyperparameters: asked.hyperparameters } : {}),
          ...(asked.base_model ? { base_model: asked.base_model } : {}),
          ...(asked.training ? { training: asked.training } : {}),
        }
      : null,
  );
  const points = query.data?.points ?? [];
  const isCurrent = (point: ComparisonPoint) =>
    point.gpu_config.type === configuration.gpuType &&
    point.gpu_config.count === count &&
    point.preset_id === configuration.presetId;
  const choose = ({ gpu_config: gpus, preset_id: presetId }: ComparisonPoint) => {
    const preset = catalogue.presets.find(({ id }) => id === presetId);
    const base = preset ? withPreset(configuration, preset) : configuration;
    onChange(withValue({ ...base, gpuType: gpus.type }, "gpu_config.count", gpus.count));
  };
  return (
    <Section
      id="alternatives"
      title="Alternatives"
      aside={
        open && points.length > 0 ? (
          <Button size="small" look="quiet" onClick={() => setAsTable(!asTable)}>
            {asTable ? <ChartScatter aria-hidden /> : <Table2 aria-hidden />}
            {asTable ? "Show the plot" : "Show a table"}
          </Button>
        ) : undefined
      }
    >
      {!open ? (
        <div className="flex flex-wrap items-center justify-between gap-3">
          <p className="grow basis-60 text-sm text-pretty text-soft">
            Cost and time of this job on every GPU type, on one to eight of them, with every preset.
          </p>
          <Button disabled={asked === null} onClick={() => setOpen(true)}>
            <ChartScatter aria-hidden />
            Compare
          </Button>
        </div>
      ) : query.isError ? (
        <p role="alert" className="rounded-xl bg-bad-soft px-4 py-3 text-sm text-bad">
          {explain(query.error).title}. {explain(query.error).description}
        </p>
      ) : points.length === 0 ? (
        <Skeleton className="h-72 w-full" />
      ) : (
        <div className={cn("transition-opacity", query.isPlaceholderData && "opacity-65")}>
          {asTable ? (
            <PointsTable points={points} isCurrent={isCurrent} onChoose={choose} />
          ) : (
            <ParetoPlot points={points} isCurrent={isCurrent} onChoose={choose} />
          )}
        </div>
      )}
    </Section>
  );
}

export function named(point: ComparisonPoint): string {
  return `${point.gpu_config.count} × ${point.gpu_config.type}, ${capitalise(point.preset_id)}`;
}

type TableProps = {
  points: readonly ComparisonPoint[];
  isCurrent: (point: ComparisonPoint) => boolean;
  onChoose: (point: ComparisonPoint) => void;
};

function PointsTable({ points, isCurrent, onChoose }: TableProps) {
  const sorted = [...points].sort((one, other) => one.estimated_cost - other.estimated_cost);
  return (
    // It scrolls, so it can be reached with the keyboard.
    <div role="region" aria-label="Table of alternatives" tabIndex={0} className="max-h-96 overflow-auto rounded-lg border border-line">
      <table className="figures w-full text-sm">
        <thead className="sticky top-0 bg-sunken text-left text-xs text-soft">
          <tr>
            <th className="px-3 py-2 font-medium">Configuration</th>
            <th className="px-3 py-2 text-right font-medium">Cost</th>
            <th className="px-3 py-2 text-right font-medium">Time</th>
            <th className="px-3 py-2 font-medium max-sm:hidden">Note</th>
            <th className="px-3 py-2">
              <span className="sr-only">Choice</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {sorted.map((point) => (
            <tr key={named(point)} className={cn("border-t border-line", isCurrent(point) && "bg-brand-soft")}>
              <td className="px-3 py-1.5">{named(point)}</td>
              <td className="px-3 py-1.5 text-right">{money(point.estimated_cost)}</td>
              <td className="px-3 py-1.5 text-right whitespace-nowrap">{duration(point.estimated_duration_hours)}</td>
              <td className="px-3 py-1.5 text-soft max-sm:hidden">
                {point.verdict === "does_not_fit" ? "does not fit" : point.is_pareto ? "best of its kind" : ""}
              </td>
              <td className="px-2 py-1 text-right">
                {isCurrent(point) ? (
                  <span className="px-2 text-xs text-brand">Chosen</span>
                ) : (
                  <Button size="small" look="quiet" className="h-7 px-2" aria-label={`Choose ${named(point)}`} onClick={() => onChoose(point)}>
                    Choose
                  </Button>
                )}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
