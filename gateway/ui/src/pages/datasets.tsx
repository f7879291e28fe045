import { Database, FileWarning, Search, Trash2, Upload } from "lucide-react";
import { lazy, Suspense, useState, type DragEvent } from "react";
import { Link, useSearchParams } from "react-router";

import type { Dataset, DatasetStatus } from "@/api/types";
import { openedFrom } from "@/components/back-link";
import { PageHeader } from "@/components/page-header";
import { Pager } from "@/components/pager";
import { SearchBox } from "@/components/ui/search-box";
import { Empty, LoadingRows, Unloaded } from "@/components/states";
import { DatasetStatusBadge } from "@/datasets/status-badge";
import { TimeAgo } from "@/components/time-ago";
import { Button } from "@/components/ui/button";
import { Select } from "@/components/ui/select";
import { useDatasets } from "@/datasets/queries";
import { chunk } from "@/lib/chunk";
import { cn } from "@/lib/cn";
import { bytes, capitalise, count, short } from "@/lib/format";
import { pageFromSearch } from "@/lib/pagination";

const UploadDialog = lazy(async () => ({ default: (await chunk(() => import("@/datasets/upload-dialog"))).UploadDialog }));
const ValidationErrorsDialog = lazy(async () => ({ default: (await chunk(() => import("@/datasets/validation-errors-dialog"))).ValidationErrorsDialog }));

const DeleteDialog = lazy(async () => ({ default: (await chunk(() => import("@/datasets/delete-dialog"))).DeleteDialog }));

const STATUSES: readonly DatasetStatus[] = ["ready", "error", "validating", "uploading"];

export function DatasetsPage() {
  const [search, setSearch] = useSearchParams();
  const page = pageFromSearch(search);
  const status = STATUSES.find((value) => value === search.get("status"));
  const text = search.get("search") ?? "";
  const [dropped, setDropped] = useState<File | null>(null);
  const [uploading, setUploading] = useState(false);
  const [errorsOf, setErrorsOf] = useState<Dataset | null>(null);
  const [toDelete, setToDelete] = useState<Dataset | null>(null);
  const query = useDatasets({
    page,
    limit: 10,
    ...(status ? { status } : {}),
    ...(text ? { search: text } : {}),
  });

  const setFilters = (changes: Record<string, string | null>) => {
    setSearch(
      (parameters) => {
        for (const [name, value] of Object.entries(changes)) {
          if (value) parameters.set(name, value);
          else parameters.delete(name);
        }
        return parameters;
      },
      { replace: true },
    );
  };
  const openUpload = (file: File | null) => {
    setDropped(file);
    setUploading(true);
  };
  const drop = useDrop(openUpload);
  const filtered = Boolean(text || status);
  const { data } = query;

  return (
    <div {...drop.handlers} className="relative">
      <PageHeader
        title="Datasets"
        actions={
          <Button variant="primary" onClick={() => openUpload(null)}>
            <Upload aria-hidden />
            Upload dataset
          </Button>
        }
      >
        Data to train on: conversations, instructions, prompts with completions, or texts. Drop a file anywhere on this page.
      </PageHeader>

      <div className="mb-4 flex flex-wrap gap-2">
        <SearchBox
          label="Search datasets by name"
          placeholder="Search by name"
          className="min-w-40 grow sm:max-w-xs"
          value={text}
          onChange={(changed) => setFilters({ search: changed, page: null })}
        />
        <Select
          label="Status"
          className="w-36"
          value={status ?? "all"}
          onChange={(value) => setFilters({ status: value === "all" ? null : value, page: null })}
          options={[
            { value: "all", label: "Any status" },
            ...STATUSES.map((value) => ({ value, label: capitalise(value) })),
          ]}
        />
      </div>

      <section aria-label="Datasets" aria-busy={query.isFetching} className="panel overflow-hidden">
        {data ? (
          data.datasets.length > 0 ? (
            <DatasetTable datasets={data.datasets} onErrors={setErrorsOf} onDelete={setToDelete} />
          ) : filtered || page > 1 ? (
            <Empty
              icon={Search}
              title="No dataset matches"
              action={
                <Button onClick={() => setFilters({ search: null, status: null, page: null })}>Show all datasets</Button>
              }
            >
              No dataset matches the search and the status.
            </Empty>
          ) : (
            <Empty
              icon={Database}
              title="No datasets yet"
              action={
                <Button variant="primary" onClick={() => openUpload(null)}>
                  <Upload aria-hidden />
                  Upload a dataset
                </Button>
              }
            >
              Upload JSON Lines, JSON, CSV or Parquet: chat messages, ShareGPT conversations, instructions, prompts with completions, or texts.
            </Empty>
          )
        ) : (
          <Unloaded query={query}>
            <LoadingRows noun="datasets" />
          </Unloaded>
        )}
      </section>
      {data && <Pager pagination={data.pagination} noun="datasets" onPage={(to) => setFilters({ page: String(to) })} />}

      {drop.isOver && (
        <div className="pointer-events-none fixed inset-3 z-40 grid place-items-center rounded-2xl border-2 border-dashed border-brand bg-brand-soft/90">
          <p className="flex items-center gap-3 text-lg font-medium text-brand">
            <Upload className="size-6" aria-hidden />
            Drop the file to upload it
          </p>
        </div>
      )}
      <Suspense>
        {uploading && <UploadDialog initial={dropped} onClose={() => setUploading(false)} />}
        {toDelete && <DeleteDialog dataset={toDelete} onClose={() => setToDelete(null)} />}
        {errorsOf && <ValidationErrorsDialog dataset={errorsOf} onClose={() => setErrorsOf(null)} />}
      </Suspense>
    </div>
  );
}

function useDrop(onFile: (file: File) => void) {
  const [depth, setDepth] = useState(0);
  const hasFiles = (event: DragEvent) => event.dataTransfer.types.includes("Files");
  return {
    isOver: depth > 0,
    handlers: {
      onDragEnter: (event: DragEvent) => hasFiles(event) && setDepth((before) => before + 1),
      onDragLeave: (event: DragEvent) => hasFiles(event) && setDepth((before) => Math.max(0, before - 1)),
      onDragOver: (event: DragEvent) => hasFiles(event) && event.preventDefault(),
      onDrop: (event: DragEvent) => {
        setDepth(0);
        const file = event.dataTransfer.files[0];
        if (!file) return;
        event.preventDefault();
        onFile(file);
      },
    },
  };
}

/** A tablet has the columns that matter most, so that names keep their room; a phone has a card for each dataset. */
const COLUMNS =
  "md:grid md:grid-cols-[minmax(0,1fr)_6.5rem_5rem_10.5rem] md:items-center md:gap-4 lg:grid-cols-[minmax(0,1fr)_6.5rem_5rem_5.5rem_5.5rem_10.5rem]";
const WIDE_ONLY = "md:max-lg:hidden";

type TableProps = { datasets: Dataset[]; onErrors: (dataset: Dataset) => void; onDelete: (dataset: Dataset) => void };

function DatasetTable({ datasets, onErrors, onDelete }: TableProps) {
  return (
    <div role="table" aria-label="Datasets">
      <div role="row" className={`hidden border-b border-line bg-sunken/50 px-5 py-2.5 text-xs font-medium text-soft ${COLUMNS}`}>
        <span role="columnheader">Name</span>
        <span role="columnheader">Status</span>
        <span role="columnheader" className="text-right">
          Pairs
        </span>
        <span role="columnheader" className={cn("text-right", WIDE_ONLY)}>
          Tokens
        </span>
        <span role="columnheader" className={cn("text-right", WIDE_ONLY)}>
          Size
        </span>
        <span role="columnheader">
          <span className="sr-only">Actions</span>
        </span>
      </div>
      {datasets.map((dataset) => (
        <Row key={dataset.id} dataset={dataset} onErrors={() => onErrors(dataset)} onDelete={() => onDelete(dataset)} />
      ))}
    </div>
  );
}

function Row({ dataset, onErrors, onDelete }: { dataset: Dataset; onErrors: () => void; onDelete: () => void }) {
  const ready = dataset.status === "ready" && dataset.training_ready;
  const bad = dataset.validation_error_count;
  const errors = bad === 1 ? "1 bad row" : bad > 1 ? `${count(bad)} bad rows` : "Not usable";
  const warnings = dataset.validation_warnings.length;
  return (
    <div role="row" className={`border-b border-line px-5 py-3.5 last:border-0 max-md:grid max-md:grid-cols-3 max-md:gap-x-4 max-md:gap-y-3 ${COLUMNS}`}>
      <div role="cell" className="min-w-0 max-md:col-span-3">
        <p className="truncate font-medium">
          <Link to={`/datasets/${dataset.id}`} state={openedFrom("/datasets")} className="hover:underline">
            {dataset.name}
          </Link>
        </p>
        <p className="truncate text-[0.8125rem] text-soft">
          {[dataset.format?.replace("_", " / "), dataset.file_name].filter(Boolean).join(" · ")}
          {dataset.created_at && (
            <>
              {(dataset.format ?? dataset.file_name) && " · "}
              <TimeAgo at={dataset.created_at} />
            </>
          )}
          {warnings > 0 && (
            <>
              {" · "}
              <Link to={`/datasets/${dataset.id}`} className="text-warn hover:underline" aria-label={`Warnings of ${dataset.name}`}>
                {warnings === 1 ? "1 warning" : `${count(warnings)} warnings`}
              </Link>
            </>
          )}
          {dataset.status === "error" && " · file not stored"}
        </p>
      </div>
      <div role="cell" className="flex max-md:hidden">
        <DatasetStatusBadge status={dataset.status} />
      </div>
      <Figure label="Pairs" value={dataset.total_training_pairs} show={count} />
      <Figure label="Tokens" value={dataset.total_tokens} show={short} full className={WIDE_ONLY} />
      <Figure label="Size" value={dataset.file_size} show={bytes} className={WIDE_ONLY} />
      <div role="cell" className="flex items-center gap-2 max-md:col-span-3 md:justify-end">
        <span className="mr-auto flex md:hidden">
          <DatasetStatusBadge status={dataset.status} />
        </span>
        {ready && (
          <Button asChild size="small">
            <Link to={`/training/configure?datasetId=${dataset.id}`} aria-label={`Start Training on ${dataset.name}`}>
              Start Training
            </Link>
          </Button>
        )}
        {dataset.status === "error" && (
          <Button size="small" variant="destructive" onClick={onErrors} aria-label={`${errors}: errors in ${dataset.name}`}>
            <FileWarning aria-hidden />
            {errors}
          </Button>
        )}
        {dataset.status === "ready" && !dataset.training_ready && <span className="text-xs text-soft">Not for training</span>}
        <Button size="icon" variant="ghost" className="-mr-2 size-8" aria-label={`Delete ${dataset.name}`} onClick={onDelete}>
          <Trash2 aria-hidden />
        </Button>
      </div>
    </div>
  );
}

type FigureProps = { label: string; value: number | null; show: (value: number) => string; full?: boolean; className?: string };

function Figure({ label, value, show, full, className }: FigureProps) {
  return (
    <div role="cell" className={cn("figures text-sm md:text-right", className)} title={full && value !== null ? count(value) : undefined}>
      <span className="block text-xs text-soft md:hidden">{label}</span>
      {value === null ? <span className="text-soft">–</span> : show(value)}
    </div>
  );
}
