import { Database, Info } from "lucide-react";
import { Link } from "react-router";

import { explain } from "@/api/errors";
import { DatasetStatusBadge } from "@/datasets/status-badge";
import { ValidationWarnings } from "@/datasets/validation-warnings";
import { Button } from "@/components/ui/button";
import { Select } from "@/components/ui/select";
import { Skeleton } from "@/components/ui/skeleton";
import { useDataset, useDatasetOptions } from "@/datasets/queries";
import { count, short } from "@/lib/format";
import { Section } from "@/components/section";

type Props = { datasetId: string | null; onSelect: (datasetId: string) => void };

export function DatasetSection({ datasetId, onSelect }: Props) {
  const dataset = useDataset(datasetId);
  const options = useDatasetOptions();
  const hasOthers = options.length > 1 || (options.length === 1 && options[0]?.value !== datasetId);
  return (
    <Section
      id="dataset"
      title="Dataset"
      aside={
        hasOthers && (
          <Select
            label="Dataset"
            text={datasetId === null ? "Select" : "Change"}
            value={options.some(({ value }) => value === datasetId) ? (datasetId ?? "") : ""}
            options={options}
            onChange={onSelect}
            className="h-8"
          />
        )
      }
    >
      {datasetId === null ? (
        <div className="flex flex-wrap items-center gap-x-4 gap-y-3 rounded-xl bg-warn-soft px-4 py-3 text-sm text-warn">
          <Info className="size-4 shrink-0" aria-hidden />
          <p className="grow basis-48">No dataset is selected. Select one to train on.</p>
          <Button asChild size="small">
            <Link to="/datasets">Go to datasets</Link>
          </Button>
        </div>
      ) : dataset.data ? (
        <>
          <div className="flex flex-wrap items-center gap-x-4 gap-y-2">
            <span className="grid size-9 shrink-0 place-items-center rounded-lg bg-sunken text-soft">
              <Database className="size-4" aria-hidden />
            </span>
            <div className="min-w-0 grow basis-48">
              <p className="truncate font-medium">{dataset.data.name}</p>
              <p className="figures truncate text-[0.8125rem] text-soft">
                {[
                  dataset.data.format?.replace("_", " / "),
                  dataset.data.total_training_pairs !== null && `${count(dataset.data.total_training_pairs)} pairs`,
                  dataset.data.total_tokens !== null && `${short(dataset.data.total_tokens)} tokens`,
                ]
                  .filter(Boolean)
                  .join(" · ")}
              </p>
            </div>
            <DatasetStatusBadge status={dataset.data.status} />
          </div>
          {dataset.data.validation_warnings.length > 0 && (
            <details open className="mt-4 text-sm">
              <summary className="cursor-pointer font-medium text-warn">
                {`Imported with ${dataset.data.validation_warnings.length === 1 ? "a warning" : "warnings"}`}
              </summary>
              <div className="mt-3">
                <ValidationWarnings dataset={dataset.data} />
                <Link to={`/datasets/${dataset.data.id}`} className="mt-2 inline-block text-brand underline-offset-4 hover:underline">
                  Show the rows
                </Link>
              </div>
            </details>
          )}
        </>
      ) : dataset.isError ? (
        <div role="alert" className="flex flex-wrap items-center gap-x-4 gap-y-3 rounded-xl bg-bad-soft px-4 py-3 text-sm text-bad">
          <p className="grow basis-48">
            {explain(dataset.error).title}. {explain(dataset.error).description}
          </p>
          <Button asChild size="small">
            <Link to="/datasets">Go to datasets</Link>
          </Button>
        </div>
      ) : (
        <div className="flex items-center gap-4">
          <Skeleton className="size-9 rounded-lg" />
          <div className="grow space-y-2 py-0.5">
            <Skeleton className="h-4 w-48" />
            <Skeleton className="h-3.5 w-32" />
          </div>
        </div>
      )}
    </Section>
  );
}
