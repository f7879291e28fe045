import type { Job } from "@/api/types";
import { jobTitle } from "@/jobs/labels/labels";

/** Jobs that are compared at once: as many columns as can be read. */
export const MAX_COMPARED = 20;
/** Curves of a chart: as many as there are colours that can be told apart. */
export const MAX_CURVES = 8;

/** The address of a comparison. */
export function compareAddress(ids: readonly string[]): string {
  return `/training/jobs/compare?ids=${ids.join(",")}`;
}

/** The ids of a comparison, once each, and how many there are too many of. */
export function idsFromSearch(search: URLSearchParams): { ids: readonly string[]; left: number } {
  const ids = [...new Set((search.get("ids") ?? "").split(",").filter(Boolean))];
  return { ids: ids.slice(0, MAX_COMPARED), left: Math.max(0, ids.length - MAX_COMPARED) };
}

/** What jobs are called beside each other: their titles, with the start of the id where two have the same. */
export function runNames(jobs: readonly Job[]): ReadonlyMap<string, string> {
  const titles = jobs.map(jobTitle);
  return new Map(
    jobs.map((job, index) => {
      const title = titles[index] ?? job.id;
      return [job.id, titles.filter((other) => other === title).length > 1 ? `${title} (${job.id.slice(0, 8)})` : title];
    }),
  );
}

/** Jobs whose curves are drawn, by colour. Null: the colour is free. */
export type Slots = readonly (string | null)[];

/** The first jobs, one for each colour. */
export function firstSlots(ids: readonly string[]): Slots {
  return Array.from({ length: MAX_CURVES }, (_, index) => ids[index] ?? null);
}

/** Shows a job in the first free colour, or hides it. The other jobs keep their colours. Without a free colour nothing changes. */
export function toggled(slots: Slots, id: string): Slots {
  const index = slots.indexOf(slots.includes(id) ? id : null);
  return slots.map((slot, at) => (at !== index ? slot : slot === id ? null : id));
}
