import type { JobSort } from "@/api/types";

/** Columns by width of the screen: a phone shows a card for each job, a tablet the most important columns. */
export const COLUMNS =
  "md:grid md:items-center md:gap-x-3 md:grid-cols-[1.75rem_minmax(0,1fr)_7rem_7rem_5rem_2.25rem] lg:grid-cols-[1.75rem_minmax(0,1fr)_8.5rem_7rem_7.5rem_5.5rem_5rem_2.25rem] xl:grid-cols-[1.75rem_minmax(0,1fr)_9.5rem_7rem_8rem_6rem_5rem_5rem_2.25rem]";

/** The sortable columns, in order. */
export const HEADERS: readonly { sort: JobSort; className?: string }[] = [
  { sort: "name" },
  { sort: "base_model", className: "max-lg:hidden" },
  { sort: "status" },
  { sort: "progress" },
  { sort: "duration", className: "max-lg:hidden justify-end" },
  { sort: "estimated_cost", className: "max-xl:hidden justify-end" },
  { sort: "cost", className: "justify-end" },
];
