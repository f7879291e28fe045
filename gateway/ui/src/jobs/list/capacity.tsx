import { ChevronRight } from "lucide-react";

import type { GpuCapacity } from "@/api/types";
import { useCapacity } from "@/jobs/queries";
import { count, duration } from "@/lib/format";

/** Free and busy GPUs of each type, and the numbers of running and waiting jobs of all users. Empty without trainers and jobs. */
export function Capacity() {
  const { data } = useCapacity();
  if (!data || data.length === 0) return null;
  const total = (value: (type: GpuCapacity) => number) => count(data.reduce((sum, type) => sum + value(type), 0));
  return (
    <details className="panel group mt-4 p-4">
      <summary className="flex list-none flex-wrap items-center gap-x-4 gap-y-1 text-sm">
        <ChevronRight className="size-4 transition-transform group-open:rotate-90" aria-hidden />
        <h2 className="font-semibold">GPU capacity</h2>
        <span className="text-soft">
          {total((type) => type.free_gpus)} GPUs free, {total((type) => type.busy_gpus)} in use, {total(waiting)} jobs waiting
        </span>
      </summary>
      {/* A scrolling region needs a tab stop, so that the keyboard can scroll it. */}
      <div role="region" aria-label="GPU capacity" tabIndex={0} className="mt-3 overflow-x-auto rounded-lg border border-line">
        <table aria-label="GPU capacity" className="figures w-full text-sm">
          <thead className="bg-sunken text-left text-xs text-soft">
            <tr>
              <th scope="col" className="px-3 py-2 font-medium">
                GPU type
              </th>
              {["Free GPUs", "GPUs in use", "Running jobs", "Waiting jobs", "Longest wait"].map((title) => (
                <th key={title} scope="col" className="px-3 py-2 text-right font-medium">
                  {title}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {data.map((type) => (
              <tr key={type.gpu_type} className="border-t border-line">
                <th scope="row" className="px-3 py-1.5 text-left font-medium whitespace-nowrap">
                  {type.gpu_type}
                </th>
                <td className="px-3 py-1.5 text-right">{count(type.free_gpus)}</td>
                <td className="px-3 py-1.5 text-right">{count(type.busy_gpus)}</td>
                <td className="px-3 py-1.5 text-right">{count(type.running_jobs)}</td>
                <td className="px-3 py-1.5 text-right">
                  {count(waiting(type))}
                  {type.starting_jobs > 0 && <span className="block text-xs text-soft">{count(type.starting_jobs)} for a scheduler</span>}
                </td>
                <td className="px-3 py-1.5 text-right whitespace-nowrap">
                  {type.queued_jobs > 0 ? duration(type.longest_wait_seconds / 3600) : "–"}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}

function waiting(type: GpuCapacity): number {
  return type.queued_jobs + type.starting_jobs;
}
