import { useState } from "react";

import type { Job } from "@/api/types";

/** Selected jobs, over pages and filters. A job that is listed now is as the list has it. */
export function useSelection(listed: readonly Job[]) {
  const [selected, setSelected] = useState<ReadonlyMap<string, Job>>(new Map());
  const current = new Map(listed.map((job) => [job.id, job]));
  return {
    jobs: [...selected.values()].map((job) => current.get(job.id) ?? job),
    has: ({ id }: Job) => selected.has(id),
    set: (jobs: readonly Job[], on: boolean) =>
      setSelected((before) => {
        const after = new Map(before);
        for (const job of jobs) {
          if (on) after.set(job.id, job);
          else after.delete(job.id);
        }
        return after;
      }),
    clear: () => setSelected(new Map()),
  };
}
