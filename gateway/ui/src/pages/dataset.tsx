import { ChevronLeft, ChevronRight } from "lucide-react";
import { useState, type ReactNode, type SyntheticEvent } from "react";
import { Link, useParams, useSearchParams } from "react-router";

import type { Dataset } from "@/api/types";
import { BackLink } from "@/components/back-link";
import { PageHeader } from "@/components/page-header";
import { Section } from "@/components/section";
import { LoadingRows, Unloaded } from "@/components/states";
import { Button } from "@/components/ui/button";
import { Input } from "@/components/ui/input";
import { PreviewRows } from "@/datasets/preview-rows";
import { useDataset, usePreview } from "@/datasets/queries";
import { DatasetStatusBadge } from "@/datasets/status-badge";
import { TokenHistogram } from "@/datasets/token-histogram";
import { ValidationErrors } from "@/datasets/validation-errors";
import { ValidationWarnings } from "@/datasets/validation-warnings";
import { bytes, count } from "@/lib/format";

const LIMIT = 10;

/** A dataset before anything is started on it: figures, warnings, errors, and its rows. */
export function DatasetPage() {
  const { id = "" } = useParams();
  const query = useDataset(id);
  const dataset = query.data;
  if (!dataset) {
    return (
      <>
        <PageHeader title="Dataset" before={<BackLink to="/datasets" label="All datasets" />} />
        <div className="panel">
          <Unloaded query={query}>
            <LoadingRows noun="the dataset" />
          </Unloaded>
        </div>
      </>
    );
  }
  return <Loaded dataset={dataset} />;
}

function Loaded({ dataset }: { dataset: Dataset }) {
  const [search, setSearch] = useSearchParams();
  const start = startOf(search);
  const go = (changes: { row: number } | { line: number }) => {
    setSearch(Object.fromEntries(Object.entries(changes).map(([name, value]) => [name, String(value)])));
  };
  const onLine = (line: number) => {
    go({ line });
    document.getElementById("dataset-rows")?.scrollIntoView({ block: "start" });
  };
  const ready = dataset.status === "ready" && dataset.training_ready;
  const warnings = dataset.validation_warnings.length;
  return (
    <>
      <PageHeader
        title={dataset.name}
        before={<BackLink to="/datasets" label="All datasets" />}
        actions={
          ready && (
            <Button asChild variant="primary">
              <Link to={`/training/configure?datasetId=${dataset.id}`}>Start Training</Link>
            </Button>
          )
        }
      >
        <span className="flex flex-wrap items-center gap-x-2 gap-y-1">
          <DatasetStatusBadge status={dataset.status} />
          {[dataset.format?.replace("_", " / "), dataset.file_name].filter(Boolean).join(" · ")}
        </span>
      </PageHeader>
      <div className="space-y-5">
        {warnings > 0 && (
          <Section id="dataset-warnings" title={warnings === 1 ? "1 warning" : `${count(warnings)} warnings`}>
            <ValidationWarnings dataset={dataset} onLine={onLine} />
          </Section>
        )}
        {dataset.status === "error" && (
          <Section id="dataset-errors" title="Errors">
            <ValidationErrors dataset={dataset} onLine={onLine} />
            <p className="mt-3 text-sm text-soft">
              The file was not stored. Below are its first rows and its first bad rows; deleting the dataset removes them.
            </p>
          </Section>
        )}
        <div className="grid gap-5 md:grid-cols-2">
          <Section id="dataset-figures" title="Statistics">
            <dl className="figures grid grid-cols-2 gap-4 text-sm">
              <Figure label="Rows" value={dataset.total_rows} />
              <Figure label="Training pairs" value={dataset.total_training_pairs} />
              <Figure label="Tokens" value={dataset.total_tokens} />
              <Figure label="File" value={dataset.file_size} show={bytes} />
            </dl>
          </Section>
          {dataset.token_histogram.length > 0 && (
            <Section id="dataset-lengths" title="Sample length">
              <TokenHistogram dataset={dataset} />
            </Section>
          )}
        </div>
        <Rows id={dataset.id} start={start} onGo={go} />
      </div>
    </>
  );
}

function startOf(search: URLSearchParams): { row: number } | { line: number } {
  const line = Number(search.get("line"));
  if (Number.isSafeInteger(line) && line > 0) return { line };
  const row = Number(search.get("row"));
  return { row: Number.isSafeInteger(row) && row > 0 ? row : 1 };
}

type RowsProps = { id: string; start: { row: number } | { line: number }; onGo: (to: { row: number } | { line: number }) => void };

function Rows({ id, start, onGo }: RowsProps) {
  const query = usePreview(id, start, LIMIT);
  const rows = query.data?.rows ?? [];
  const total = query.data?.total_rows ?? 0;
  const first = rows[0]?.row ?? ("row" in start ? start.row : 1);
  const next = (rows.at(-1)?.row ?? 0) + 1;
  return (
    <section aria-labelledby="dataset-rows" aria-busy={query.isFetching}>
      <div className="mb-3 flex flex-wrap items-center justify-between gap-3">
        <h2 id="dataset-rows" className="scroll-mt-20 font-semibold tracking-tight">
          Rows
        </h2>
        <GoToLine onLine={(line) => onGo({ line })} />
      </div>
      {!query.data ? (
        <div className="panel">
          <Unloaded query={query}>
            <LoadingRows noun="rows" />
          </Unloaded>
        </div>
      ) : rows.length > 0 ? (
        <PreviewRows rows={rows} />
      ) : (
        <p className="panel p-5 text-sm text-soft">{total > 0 ? "The dataset ends before this row." : "There are no rows to show."}</p>
      )}
      {total > 0 && (
        <nav aria-label="Rows" className="flex items-center justify-between gap-4 px-1 pt-4 text-sm text-soft">
          <p className="figures">
            {rows.length > 0 && `${count(first)}–${count(next - 1)} of `}
            {count(total)} rows
          </p>
          <div className="flex gap-2">
            <Button size="small" disabled={first <= 1} onClick={() => onGo({ row: Math.max(1, first - LIMIT) })}>
              <ChevronLeft aria-hidden />
              <span className="max-sm:sr-only">Previous rows</span>
            </Button>
            <Button size="small" disabled={rows.length === 0 || next > total} onClick={() => onGo({ row: next })}>
              <span className="max-sm:sr-only">Next rows</span>
              <ChevronRight aria-hidden />
            </Button>
          </div>
        </nav>
      )}
    </section>
  );
}

function GoToLine({ onLine }: { onLine: (line: number) => void }) {
  const [typed, setTyped] = useState("");
  const line = Number(typed);
  const valid = Number.isSafeInteger(line) && line > 0;
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    if (valid) onLine(line);
  };
  return (
    <form onSubmit={submit} className="flex items-center gap-2">
      <Input
        aria-label="Line of the file"
        placeholder="Line"
        inputMode="numeric"
        className="h-8 w-24"
        value={typed}
        onChange={({ target }) => setTyped(target.value)}
      />
      <Button size="small" type="submit" disabled={!valid}>
        Go to line
      </Button>
    </form>
  );
}

type FigureProps = { label: string; value: number | null; show?: (value: number) => string };

function Figure({ label, value, show = count }: FigureProps): ReactNode {
  return (
    <div>
      <dt className="text-xs text-soft">{label}</dt>
      <dd>{value === null ? "–" : show(value)}</dd>
    </div>
  );
}
