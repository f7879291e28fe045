import { Wrench } from "lucide-react";

import type { Estimate, MemoryForecast, Repair } from "@/api/types";
import { Badge, type Tone } from "@/components/ui/badge";
import { Button } from "@/components/ui/button";
import { Skeleton } from "@/components/ui/skeleton";
import { cn } from "@/lib/cn";
import { count, duration, moneyChange } from "@/lib/format";
import { Section } from "@/components/section";

const VERDICTS: Readonly<Record<MemoryForecast["verdict"], { tone: Tone; text: string }>> = {
  fits: { tone: "good", text: "Fits" },
  tight: { tone: "warn", text: "Tight" },
  does_not_fit: { tone: "bad", text: "Does not fit" },
};

/** Parts of the memory in the order of the bar: first those that do not depend on the samples. */
const PARTS = [
  ["weights_gib", "Weights", "bg-[oklch(0.5_0.1_163)]"],
  ["adapters_gib", "Adapter", "bg-[oklch(0.65_0.13_150)]"],
  ["gradients_gib", "Gradients", "bg-[oklch(0.7_0.13_115)]"],
  ["optimizer_gib", "Optimizer", "bg-[oklch(0.75_0.14_90)]"],
  ["activations_gib", "Activations", "bg-[oklch(0.68_0.15_55)]"],
  ["logits_gib", "Logits", "bg-[oklch(0.6_0.15_25)]"],
  ["overhead_gib", "Overhead", "bg-[oklch(0.6_0.03_250)]"],
] as const;

type Props = {
  /** Null: not loaded yet. */
  memory: MemoryForecast | null;
  repairs: Estimate["repairs"];
  /** The note if the job does not fit and no change helps; null otherwise. */
  repairsNote: string | null;
  allowsRisk: boolean;
  onAllowRisk: (allowed: boolean) => void;
  onRepair: (repair: Repair) => void;
};

export function MemorySection({ memory, repairs, repairsNote, allowsRisk, onAllowRisk, onRepair }: Props) {
  if (!memory) {
    return (
      <Section id="memory" title="GPU memory">
        <Skeleton className="h-24 w-full" />
      </Section>
    );
  }
  const verdict = VERDICTS[memory.verdict];
  return (
    <Section id="memory" title="GPU memory" aside={<Badge tone={verdict.tone}>{verdict.text}</Badge>}>
      <MemoryBar memory={memory} />
      {repairsNote && <p className="mt-4 text-sm text-pretty text-bad">{repairsNote}</p>}
      {repairs.length > 0 && (
        <div className="mt-5 border-t border-line pt-4">
          <h3 className="mb-2.5 text-sm font-semibold">Changes that make it fit</h3>
          <ul className="grid gap-2">
            {repairs.map((repair) => (
              <li key={repair.title}>
                <Button
                  className="h-auto min-h-9.5 w-full justify-start gap-3 py-2 text-left whitespace-normal"
                  onClick={() => onRepair(repair)}
                >
                  <Wrench aria-hidden className="text-brand" />
                  <span className="grow">{repair.title}</span>
                  <span className={cn("figures shrink-0", repair.cost_change > 0 ? "text-warn" : "text-good")}>
                    {moneyChange(repair.cost_change)}
                  </span>
                  <span className="figures w-28 shrink-0 text-right font-normal text-soft max-sm:hidden">
                    {duration(repair.estimated_duration_hours)} · {repair.memory.total_gib.toFixed(0)} GiB
                  </span>
                </Button>
              </li>
            ))}
          </ul>
        </div>
      )}
      {memory.verdict === "does_not_fit" && (
        <label className="mt-4 flex items-start gap-2.5 text-sm">
          <input
            type="checkbox"
            className="mt-0.5 size-4 accent-(--brand)"
            checked={allowsRisk}
            onChange={({ target }) => onAllowRisk(target.checked)}
          />
          <span>Start it anyway. It will probably run out of memory, and the cost until then is billed.</span>
        </label>
      )}
    </Section>
  );
}

function MemoryBar({ memory }: { memory: MemoryForecast }) {
  const scale = Math.max(memory.total_gib, memory.usable_gib);
  const shown = PARTS.filter(([part]) => memory[part] > 0);
  return (
    <>
      <p className="figures mb-3 text-sm text-soft">
        <span className="text-lg font-semibold text-ink">{memory.total_gib.toFixed(1)} GiB</span> of{" "}
        {memory.usable_gib.toFixed(1)} GiB usable
        {memory.longest_tokens > 0 && `, for the longest sample of ${count(memory.longest_tokens)} tokens`}
        {memory.sharded_over > 1 && `. Weights are sharded over ${memory.sharded_over} GPUs`}
      </p>
      <div
        role="img"
        aria-label={shown.map(([part, name]) => `${name} ${memory[part].toFixed(1)} GiB`).join(", ")}
        className="relative h-5 rounded-md bg-sunken inset-ring inset-ring-line"
      >
        <div className="flex h-full gap-px overflow-hidden rounded-md">
          {shown.map(([part, , colour]) => (
            <div key={part} className={cn("h-full transition-[width] duration-300", colour)} style={{ width: `${(memory[part] / scale) * 100}%` }} />
          ))}
        </div>
        <div
          className="absolute -inset-y-1 w-0.5 -translate-x-1/2 rounded bg-ink"
          style={{ left: `${(memory.usable_gib / scale) * 100}%` }}
        />
      </div>
      <ul aria-hidden className="figures mt-3 flex flex-wrap gap-x-4 gap-y-1 text-xs text-soft">
        {shown.map(([part, name, colour]) => (
          <li key={part} className="flex items-center gap-1.5">
            <span className={cn("size-2.5 rounded-xs", colour)} />
            {name} {memory[part].toFixed(1)}
          </li>
        ))}
      </ul>
    </>
  );
}

/** Why a job cannot be started because of its memory; null if it can. */
export function memoryWarning(memory: MemoryForecast | null | undefined, allowsRisk: boolean): string | null {
  if (memory?.verdict !== "does_not_fit" || allowsRisk) return null;
  return `It needs ${memory.total_gib.toFixed(0)} GiB and a GPU has ${memory.usable_gib.toFixed(0)}. Apply a change under “GPU memory”, or accept the risk there.`;
}
