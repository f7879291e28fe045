import { Rocket, Search } from "lucide-react";
import { lazy, Suspense, useDeferredValue, useEffect, useEffectEvent, useState } from "react";
import { Link, useSearchParams } from "react-router";

import type { Job } from "@/api/types";
import { PageHeader } from "@/components/page-header";
import { Pager } from "@/components/pager";
import { Empty, LoadingRows, Unloaded } from "@/components/states";
import { Button } from "@/components/ui/button";
import { withLabels } from "@/jobs/labels/labels";
import { Capacity } from "@/jobs/list/capacity";
import { filtersFromSearch, PAGE_SIZES, queryOfFilters, searchOfFilters, sortedBy, type Filters } from "@/jobs/list/filters";
import { useSelection } from "@/jobs/selection/selection";
import { SelectionBar } from "@/jobs/selection/selection-bar";
import { StatusTabs } from "@/jobs/list/status-tabs";
import { JobTable } from "@/jobs/list/table";
import { Toolbar } from "@/jobs/list/toolbar";
import { useTrainingJobs } from "@/jobs/queries";
import { StaleNotice } from "@/jobs/watch/stale-notice";
import { chunk } from "@/lib/chunk";

const EditDialog = lazy(async () => ({ default: (await chunk(() => import("@/jobs/labels/edit-dialog"))).EditDialog }));

export function JobsPage() {
  const [search, setSearch] = useSearchParams();
  const filters = filtersFromSearch(search);
  const query = useTrainingJobs(queryOfFilters(filters));
  // Deferred: a hundred new rows are rendered bit by bit, and typing and scrolling go on meanwhile.
  const data = useDeferredValue(query.data);
  const [edited, setEdited] = useState<Job | null>(null);
  const selection = useSelection(data?.jobs ?? []);
  const show = (changed: Filters, replace = false) => setSearch(searchOfFilters(changed), { replace, preventScrollReset: replace });
  const isFiltered = filters.status !== null || filters.search !== "" || filters.labels.length > 0 || filters.baseModel !== null;

  // A page beyond the end, as after deleting the last page's jobs, is the last page.
  const lastPage = query.isPlaceholderData ? null : (query.data?.pagination.totalPages ?? null);
  const goBack = useEffectEvent((page: number) => show({ ...filters, page }, true));
  useEffect(() => {
    if (lastPage !== null && filters.page > Math.max(1, lastPage)) goBack(Math.max(1, lastPage));
  }, [lastPage, filters.page]);

  return (
    <>
      <PageHeader
        title="Training jobs"
        actions={
          <Button asChild variant="primary">
            <Link to="/training/configure">
              <Rocket aria-hidden />
              New job
            </Link>
          </Button>
        }
      />
      <StatusTabs status={filters.status} counts={data?.status_counts} onChange={(status) => show({ ...filters, status, page: 1 })} />
      <Toolbar
        filters={filters}
        suggestions={[...new Set(data?.jobs.flatMap(({ labels }) => labels))].sort()}
        onChange={show}
        onSearch={(text) => show({ ...filters, search: text, page: 1 }, true)}
      />
      <section aria-label="Jobs" aria-busy={query.isFetching} className="panel overflow-hidden">
        {data ? (
          data.jobs.length > 0 ? (
            <JobTable
              jobs={data.jobs}
              filters={filters}
              isSelected={selection.has}
              onSelect={selection.set}
              onSort={(sort) => show(sortedBy(filters, sort))}
              onLabel={(label) => show({ ...filters, labels: withLabels(filters.labels, label), page: 1 })}
              onModel={(baseModel) => show({ ...filters, baseModel, page: 1 })}
              onEdit={setEdited}
            />
          ) : isFiltered ? (
            <Empty
              icon={Search}
              title={filters.status ? `No ${filters.status} job` : "No job matches"}
              action={<Button onClick={() => show({ ...filters, status: null, search: "", labels: [], baseModel: null, page: 1 })}>Show all jobs</Button>}
            >
              {filters.search || filters.labels.length > 0 || filters.baseModel
                ? "No job matches all of the filters."
                : "Jobs show here while they have this status."}
            </Empty>
          ) : (
            <Empty
              icon={Rocket}
              title="No jobs yet"
              action={
                <Button asChild variant="primary">
                  <Link to="/datasets">Choose a dataset</Link>
                </Button>
              }
            >
              Choose a dataset, see what training on it costs, and start.
            </Empty>
          )
        ) : (
          <Unloaded query={query}>
            <LoadingRows noun="jobs" />
          </Unloaded>
        )}
      </section>
      {data && (
        <Pager
          pagination={data.pagination}
          noun="jobs"
          onPage={(page) => show({ ...filters, page })}
          sizes={PAGE_SIZES}
          onSize={(limit) => show({ ...filters, limit, page: 1 })}
        />
      )}
      {data && <Capacity />}
      {/* Floats above the page, so that the layout does not shift. */}
      {data && <StaleNotice fetchedAt={query.dataUpdatedAt} className="fixed inset-x-4 bottom-28 z-20 mx-auto w-fit" />}
      {/* Space for the floating selection bar. */}
      <div className={selection.jobs.length > 0 ? "h-28 sm:h-20" : undefined} />
      <SelectionBar jobs={selection.jobs} onDone={(job) => selection.set([job], false)} onClear={selection.clear} />
      <Suspense>{edited && <EditDialog job={edited} onClose={() => setEdited(null)} />}</Suspense>
    </>
  );
}
