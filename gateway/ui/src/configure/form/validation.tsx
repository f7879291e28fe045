import { Select } from "@/components/ui/select";
import { validationShare, type Configuration } from "@/configure/model/configuration";
import { useDataset, useDatasetOptions } from "@/datasets/queries";
import { percent } from "@/lib/format";

const NONE = "none";
const SHARES = ["0.05", "0.1", "0.2"] as const;

type Props = { configuration: Configuration; onChange: (changed: Configuration) => void };

/** What a job validates with after each epoch: a share of its samples, or another dataset. */
export function Validation({ configuration, onChange }: Props) {
  const { datasetId, validation } = configuration;
  const share = validationShare(validation);
  const others = useDatasetOptions().filter(({ value }) => value !== datasetId);
  const selected = useDataset(validation !== null && share === null ? validation : null);
  const options = [
    { value: NONE, label: "None" },
    ...[...new Set([...SHARES, ...(share === null || validation === null ? [] : [validation])])].map((value) => ({
      value,
      label: `${percent(Number(value))} of the dataset`,
    })),
    ...others,
  ];
  // A dataset of a link may be deleted, or not on the first page of the list.
  if (validation !== null && !options.some(({ value }) => value === validation)) {
    options.push({ value: validation, label: selected.data?.name ?? "Another dataset" });
  }
  return (
    <div className="sm:col-span-2">
      <div className="flex min-h-8 flex-wrap items-center justify-between gap-3">
        <span className="text-sm font-medium">Validation</span>
        <Select
          label="Validation"
          className="h-8 w-56"
          value={validation ?? NONE}
          options={options}
          onChange={(value) => onChange({ ...configuration, validation: value === NONE ? null : value })}
        />
      </div>
      <p className="mt-1.5 text-[0.8125rem] leading-snug text-soft">
        Samples to measure the loss on after each epoch: part of the dataset, which is not trained on, or another dataset. The result is the
        state with the lowest validation loss.
      </p>
    </div>
  );
}
