import { ChartScatter, Table2 } from "lucide-react";
import { useState } from "react";

import { explain } from "@/api/errors";
import type { Catalogue, ComparisonPoint, EstimateRequest } from "@/api/types";
import { Button } from "@/components/ui/button";
import { Skeleton } from "@/components/ui/skeleton";
import { useComparison } from "@/configure/estimate/queries";
import { cn } from "@/lib/cn";
import { answersOf, comparisonOf, named, remarks, type Answers, type Goals } from "./comparison";
import { withGpuType, withPreset, withValue, type Configuration } from "@/configure/model/configuration";
import { duration, money } from "@/lib/format";
import { GoalsForm } from "./goals";
import { ParetoPlot } from "./pareto-plot";
import { Section } from "@/components/section";

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
  const [goals, setGoals] = useState<Goals>({ deadline: null, budget: null });
  const query = useComparison(open && asked ? comparisonOf(catalogue, configuration, asked, goals) : null);
  const points = query.data?.points ?? [];
  const isCurrent = (point: ComparisonPoint) =>
    point.gpu_config.type === configuration.gpuType &&
    point.gpu_config.count === configuration.values["gpu_config.count"] &&
    point.preset_id === configuration.presetId;
  const choose = ({ gpu_config: gpus, preset_id: presetId }: ComparisonPoint) => {
    const preset = catalogue.presets.find(({ id }) => id === presetId);
    const base = preset ? withPreset(configuration, preset) : configuration;
    // What is compared is the catalogue's own price.
    const chosen = { ...withGpuType(catalogue, base, gpus.type), provider: null };
    onChange(withValue(chosen, "gpu_config.count", gpus.count));
  };
  const answers = query.data && answersOf(query.data, goals);
  const shown = answers && { points, answers, isCurrent, onChoose: choose };
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
            Cost and time of this job on every GPU type, on one to eight of them, with every preset; the cheapest under a
            deadline, the fastest under a budget.
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
      ) : shown ? (
        <>
          <GoalsForm goals={goals} onGoals={setGoals} {...shown} />
          <div className={cn("transition-opacity", query.isPlaceholderData && "opacity-65")}>
            {asTable ? <PointsTable {...shown} /> : <ParetoPlot {...shown} />}
          </div>
          {configuration.provider !== null && (
            <p className="mt-3 text-[0.8125rem] text-soft">
              Compared at this catalogue&rsquo;s own prices, not at those of {configuration.provider}.
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
  "best of its kind": "text-brand",
  "not a quote": "text-soft",
};

type TableProps = {
  points: readonly ComparisonPoint[];
  answers: Answers;
  isCurrent: (point: ComparisonPoint) => boolean;
  onChoose: (point: ComparisonPoint) => void;
};

function PointsTable({ points, answers, isCurrent, onChoose }: TableProps) {
  const sorted = points
    .map((point, index) => ({ point, said: remarks(point, index, answers) }))
    .sort((one, other) => one.point.estimated_cost - other.point.estimated_cost);
  return (
    // It scrolls, so it can be reached with the keyboard.
    <div role="region" aria-label="Table of alternatives" tabIndex={0} className="max-h-96 overflow-auto rounded-lg border border-line">
      <table className="figures w-full text-sm">
        <thead className="sticky top-0 bg-sunken text-left text-xs text-soft">
          <tr>
            <th className="px-2 py-2 sm:px-3 font-medium">Configuration</th>
            <th className="px-2 py-2 sm:px-3 text-right font-medium">Cost</th>
            <th className="px-2 py-2 sm:px-3 text-right font-medium">Time</th>
            <th className="px-2 py-2 sm:px-3">
              <span className="sr-only">Choice</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {sorted.map(({ point, said }) => (
            <tr
              key={named(point)}
              className={cn("border-t border-line", isCurrent(point) && "bg-brand-soft", answers.misses(point) && "text-soft")}
            >
              <td className="px-2 py-1.5 sm:px-3">
                {named(point)}
                {said.map((remark) => (
                  <span
                    key={remark}
                    className={cn("block text-xs", TONES[remark] ?? "text-warn")}
                  >
                    {remark}
                  </span>
                ))}
              </td>
              <td className="px-2 py-1.5 sm:px-3 text-right">{money(point.estimated_cost)}</td>
              <td className="px-2 py-1.5 sm:px-3 text-right whitespace-nowrap">{duration(point.estimated_duration_hours)}</td>
              <td className="px-1 py-1 text-right sm:px-2">
                {isCurrent(point) ? (
                  <span className="px-1.5 text-xs text-brand">Chosen</span>
                ) : (
                  <Button size="small" variant="ghost" className="h-7 px-1.5" aria-label={`Choose ${named(point)}`} onClick={() => onChoose(point)}>
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
