import { ChartScatter, Table2 } from "lucide-react";
import { useState } from "react";

import { explain } from "@/api/errors";
import type { Catalogue, ComparisonPoint, EstimateRequest } from "@/api/types";
import { Button } from "@/components/ui/button";
import { Skeleton } from "@/components/ui/skeleton";
import { useComparison } from "@/configure/estimate/queries";
import { cn } from "@/lib/cn";
import { goalResults, comparisonRequest, pointName, pointNotes, type GoalResults, type Goals } from "./comparison";
import { withGpuType, withPreset, withValue, type Configuration } from "@/configure/model/configuration";
import { duration, money } from "@/lib/format";
import { GoalsForm } from "./goals";
import { ParetoPlot } from "./pareto-plot";
import { Section } from "@/components/section";

type Props = {
  catalogue: Catalogue;
  configuration: Configuration;
  request: EstimateRequest | null;
  onChange: (changed: Configuration) => void;
};

/** Compares cost and time of the job over GPU types, counts and presets. */
export function Alternatives({ catalogue, configuration, request, onChange }: Props) {
  const [open, setOpen] = useState(false);
  const [asTable, setAsTable] = useState(false);
  const [goals, setGoals] = useState<Goals>({ deadline: null, budget: null });
  const query = useComparison(open && request ? comparisonRequest(catalogue, configuration, request, goals) : null);
  const points = query.data?.points ?? [];
  const isCurrent = (point: ComparisonPoint) =>
    point.gpu_config.type === configuration.gpuType &&
    point.gpu_config.count === configuration.values["gpu_config.count"] &&
    point.preset_id === configuration.presetId;
  const select = ({ gpu_config: gpus, preset_id: presetId }: ComparisonPoint) => {
    const preset = catalogue.presets.find(({ id }) => id === presetId);
    const base = preset ? withPreset(configuration, preset) : configuration;
    // The comparison uses the catalogue's own prices.
    const selected = { ...withGpuType(catalogue, base, gpus.type), provider: null };
    onChange(withValue(selected, "gpu_config.count", gpus.count));
  };
  const results = query.data && goalResults(query.data, goals);
  const shown = results && { points, results, isCurrent, onSelect: select };
  return (
    <Section
      id="alternatives"
      title="Alternatives"
      aside={
        open && points.length > 0 ? (
          <Button size="small" variant="ghost" onClick={() => setAsTable(!asTable)}>
            {asTable ? <ChartScatter aria-hidden /> : <Table2 aria-hidden />}
            {asTable ? "Show the plot" : "Show a table"}
          </Button>
        ) : undefined
      }
    >
      {!open ? (
        <div className="flex flex-wrap items-center justify-between gap-3">
          <p className="grow basis-60 text-sm text-pretty text-soft">
            Cost and time on every GPU type, with 1 to 8 GPUs and every preset. Finds the cheapest by a deadline and the
            fastest within a budget.
          </p>
          <Button disabled={request === null} aria-describedby="compare-blocked" onClick={() => setOpen(true)}>
            <ChartScatter aria-hidden />
            Compare
          </Button>
          <p id="compare-blocked" className="basis-full text-[0.8125rem] text-soft empty:hidden">
            {request === null && "Select a dataset and correct the values marked in red first."}
          </p>
        </div>
      ) : query.isError ? (
        <p role="alert" className="rounded-xl bg-bad-soft px-4 py-3 text-sm text-bad">
          {explain(query.error).title}. {explain(query.error).description}
        </p>
      ) : shown ? (
        <>
          <GoalsForm goals={goals} onGoals={setGoals} {...shown} />
          <div className={cn("transition-opacity", query.isPlaceholderData && "opacity-65")}>
            {asTable ? <PointsTable {...shown} /> : <ParetoPlot {...shown} />}
          </div>
          {configuration.provider !== null && (
            <p className="mt-3 text-[0.8125rem] text-soft">
              These are catalogue prices, not those of {configuration.provider}.
            </p>
          )}
        </>
      ) : (
        <Skeleton className="h-72 w-full" />
      )}
    </Section>
  );
}

const TONES: Readonly<Record<string, string>> = {
  "does not fit": "text-bad",
  "Pareto-optimal": "text-brand",
  "not a quote": "text-soft",
};

type TableProps = {
  points: readonly ComparisonPoint[];
  results: GoalResults;
  isCurrent: (point: ComparisonPoint) => boolean;
  onSelect: (point: ComparisonPoint) => void;
};

function PointsTable({ points, results, isCurrent, onSelect }: TableProps) {
  const sorted = points
    .map((point, index) => ({ point, notes: pointNotes(point, index, results) }))
    .sort((first, second) => first.point.estimated_cost - second.point.estimated_cost);
  return (
    // A scrolling region needs a tab stop, so that the keyboard can scroll it.
    <div role="region" aria-label="Table of alternatives" tabIndex={0} className="max-h-96 overflow-auto rounded-lg border border-line">
      <table className="figures w-full text-sm">
        <thead className="sticky top-0 bg-sunken text-left text-xs text-soft">
          <tr>
            <th className="px-2 py-2 sm:px-3 font-medium">Configuration</th>
            <th className="px-2 py-2 sm:px-3 text-right font-medium">Cost</th>
            <th className="px-2 py-2 sm:px-3 text-right font-medium">Time</th>
            <th className="px-2 py-2 sm:px-3">
              <span className="sr-only">Selection</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {sorted.map(({ point, notes }) => (
            <tr
              key={pointName(point)}
              className={cn("border-t border-line", isCurrent(point) && "bg-brand-soft", results.misses(point) && "text-soft")}
            >
              <td className="px-2 py-1.5 sm:px-3">
                {pointName(point)}
                {notes.map((note) => (
                  <span
                    key={note}
                    className={cn("block text-xs", TONES[note] ?? "text-warn")}
                  >
                    {note}
                  </span>
                ))}
              </td>
              <td className="px-2 py-1.5 sm:px-3 text-right">{money(point.estimated_cost)}</td>
              <td className="px-2 py-1.5 sm:px-3 text-right whitespace-nowrap">{duration(point.estimated_duration_hours)}</td>
              <td className="px-1 py-1 text-right sm:px-2">
                {isCurrent(point) ? (
                  <span className="px-1.5 text-xs text-brand">Selected</span>
                ) : (
                  <Button size="small" variant="ghost" className="h-7 px-1.5" aria-label={`Select ${pointName(point)}`} onClick={() => onSelect(point)}>
                    Select
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
