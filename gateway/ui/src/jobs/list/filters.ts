import type { JobSort, JobsQuery, JobStatus } from "@/api/types";
import { isLabel, MAX_LABELS } from "@/jobs/labels/labels";
import { pageFromSearch } from "@/lib/pagination";

export const STATUSES: readonly JobStatus[] = ["queued", "initializing", "running", "completed", "failed", "cancelled"];

/** What the list is sorted by, and the direction that a first click on a column selects. */
export const SORTS: Readonly<Record<JobSort, { label: string; ascending: boolean }>> = {
  created: { label: "Created", ascending: false },
  name: { label: "Name", ascending: true },
  dataset: { label: "Dataset", ascending: true },
  base_model: { label: "Base model", ascending: true },
  status: { label: "Status", ascending: true },
  progress: { label: "Progress", ascending: false },
  duration: { label: "GPU time", ascending: false },
  estimated_cost: { label: "Estimate", ascending: false },
  cost: { label: "Cost", ascending: false },
};

export const PAGE_SIZES = [10, 25, 50, 100] as const;
const DEFAULT_LIMIT = 10;
const MAX_SEARCH_LENGTH = 200;

/** The filters and the order of the list. They are in the URL. */
export type Filters = {
  readonly page: number;
  readonly limit: number;
  readonly status: JobStatus | null;
  readonly search: string;
  readonly labels: readonly string[];
  readonly baseModel: string | null;
  readonly sort: JobSort;
  readonly ascending: boolean;
};

/** Decodes filters from URL parameters. Missing and invalid ones have their defaults. */
export function filtersFromSearch(search: URLSearchParams): Filters {
  const sort = (Object.keys(SORTS) as JobSort[]).find((one) => one === search.get("sort")) ?? "created";
  return {
    page: pageFromSearch(search),
    limit: PAGE_SIZES.find((size) => String(size) === search.get("limit")) ?? DEFAULT_LIMIT,
    status: STATUSES.find((one) => one === search.get("status")) ?? null,
    search: (search.get("search") ?? "").trim().slice(0, MAX_SEARCH_LENGTH),
    labels: [...new Set(search.getAll("label").filter(isLabel))].slice(0, MAX_LABELS),
    baseModel: (search.get("model") ?? "").slice(0, MAX_SEARCH_LENGTH) || null,
    sort,
    ascending: search.has("ascending") ? search.get("ascending") === "true" : SORTS[sort].ascending,
  };
}

/** Encodes filters as URL parameters. Defaults are left out. */
export function searchOfFilters(filters: Filters): URLSearchParams {
  const search = new URLSearchParams();
  if (filters.status) search.set("status", filters.status);
  if (filters.search) search.set("search", filters.search);
  for (const label of filters.labels) search.append("label", label);
  if (filters.baseModel) search.set("model", filters.baseModel);
  if (filters.sort !== "created") search.set("sort", filters.sort);
  if (filters.ascending !== SORTS[filters.sort].ascending) search.set("ascending", String(filters.ascending));
  if (filters.limit !== DEFAULT_LIMIT) search.set("limit", String(filters.limit));
  if (filters.page > 1) search.set("page", String(filters.page));
  return search;
}

/** The query of the API. */
export function queryOfFilters({ status, search, labels, baseModel, page, limit, sort, ascending }: Filters): JobsQuery {
  return {
    page,
    limit,
    ...(status ? { status } : {}),
    ...(search ? { search } : {}),
    ...(labels.length > 0 ? { labels: [...labels] } : {}),
    ...(baseModel ? { base_model: baseModel } : {}),
    ...(sort === "created" && !ascending ? {} : { sort, ascending }),
  };
}

/** The filters after a click on the column of `sort`: sorted by it, or the other way round if they are already. */
export function sortedBy(filters: Filters, sort: JobSort): Filters {
  const ascending = filters.sort === sort ? !filters.ascending : SORTS[sort].ascending;
  return { ...filters, sort, ascending, page: 1 };
}
