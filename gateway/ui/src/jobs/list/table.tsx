import { ArrowDown, ArrowUp } from "lucide-react";

import type { Job, JobSort } from "@/api/types";
import { jobTitle } from "@/jobs/labels/labels";
import { cn } from "@/lib/cn";
import { COLUMNS, HEADERS } from "./columns";
import { SORTS, type Filters } from "./filters";
import { Row } from "./row";

type Props = {
  jobs: readonly Job[];
  filters: Filters;
  isSelected: (job: Job) => boolean;
  onSelect: (jobs: readonly Job[], selected: boolean) => void;
  onSort: (sort: JobSort) => void;
  onLabel: (label: string) => void;
  onModel: (id: string) => void;
  onEdit: (job: Job) => void;
};

export function JobTable({ jobs, filters, isSelected, onSelect, onSort, onLabel, onModel, onEdit }: Props) {
  const selected = jobs.filter(isSelected).length;
  return (
    <div role="table" aria-label="Jobs">
      <div role="row" className={`border-b border-line bg-sunken/50 px-4 py-1 text-xs font-medium text-soft max-md:flex max-md:items-center max-md:px-3 ${COLUMNS}`}>
        <div role="columnheader" className="flex items-center">
          <Checkbox
            label="Select all jobs on this page"
            checked={selected === jobs.length}
            isMixed={selected > 0 && selected < jobs.length}
            onChange={(on) => onSelect(jobs, on)}
          />
          <span className="pl-1 md:hidden" aria-hidden>
            Select all on this page
          </span>
        </div>
        {HEADERS.map(({ sort, className }) => (
          <div
            key={sort}
            role="columnheader"
            aria-sort={filters.sort === sort ? (filters.ascending ? "ascending" : "descending") : "none"}
            className={cn("flex max-md:hidden", className)}
          >
            <SortButton sort={sort} filters={filters} onSort={onSort} />
          </div>
        ))}
        <div role="columnheader" className="max-md:hidden">
          <span className="sr-only">Actions</span>
        </div>
      </div>
      {jobs.map((job) => (
        <Row
          key={job.id}
          job={job}
          select={<Checkbox label={`Select ${jobTitle(job)}`} checked={isSelected(job)} onChange={(on) => onSelect([job], on)} />}
          onLabel={onLabel}
          onModel={onModel}
          onEdit={onEdit}
        />
      ))}
    </div>
  );
}

function SortButton({ sort, filters, onSort }: { sort: JobSort; filters: Filters; onSort: (sort: JobSort) => void }) {
  const isSorted = filters.sort === sort;
  const Icon = filters.ascending ? ArrowUp : ArrowDown;
  return (
    <button
      type="button"
      className={cn("-mx-1 flex h-7 items-center gap-1 rounded-md px-1 whitespace-nowrap hover:text-ink in-[.justify-end]:flex-row-reverse", isSorted && "text-ink")}
      onClick={() => onSort(sort)}
    >
      {SORTS[sort].label}
      {/* Takes its space always, so that sorting does not shift the layout. */}
      <Icon className={cn("size-3.5", !isSorted && "invisible")} aria-hidden />
    </button>
  );
}

type CheckboxProps = { label: string; checked: boolean; isMixed?: boolean; onChange: (checked: boolean) => void };

function Checkbox({ label, checked, isMixed = false, onChange }: CheckboxProps) {
  return (
    // Above the link that covers the row, and large enough for a finger.
    <label className="relative z-10 -ml-1.5 grid size-7 place-items-center">
      <input
        type="checkbox"
        aria-label={label}
        className="size-4 accent-(--brand)"
        checked={checked}
        ref={(input) => {
          if (input) input.indeterminate = isMixed;
        }}
        onChange={({ target }) => onChange(target.checked)}
      />
    </label>
  );
}
