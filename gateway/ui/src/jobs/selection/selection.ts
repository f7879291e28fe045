import { useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { useLocation } from "react-router";

import type { Job } from "@/api/types";

type Selected = ReadonlyMap<string, Job>;

/** In the query cache, so that it is cleared with the session. */
const KEPT = ["selection"];

/**
 * The selected jobs, across pages and filters, updated from the list. Going back in the history to a list restores the selection
 * that it was left with.
 */
export function useSelection(listed: readonly Job[]) {
  const queries = useQueryClient();
  const { key: entry } = useLocation();
  const [selected, setSelected] = useState<Selected>(() => {
    const kept = queries.getQueryData<{ entry: string; selected: Selected }>(KEPT);
    return kept?.entry === entry ? kept.selected : new Map();
  });
  useEffect(() => {
    queries.setQueryDefaults(KEPT, { gcTime: Infinity });
    queries.setQueryData(KEPT, { entry, selected });
  }, [queries, entry, selected]);
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
