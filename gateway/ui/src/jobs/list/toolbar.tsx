import { ArrowDownWideNarrow, ArrowUpNarrowWide } from "lucide-react";

import type { JobSort } from "@/api/types";
import { ModelPicker } from "@/components/models/model-picker";
import { SearchBox } from "@/components/ui/search-box";
import { Button } from "@/components/ui/button";
import { Select } from "@/components/ui/select";
import { useCatalogue } from "@/configure/catalogue";
import { LabelInput } from "@/jobs/labels/label-input";
import { SORTS, sortedBy, type Filters } from "./filters";

type Props = {
  filters: Filters;
  /** Labels of the listed jobs. */
  suggestions: readonly string[];
  onChange: (filters: Filters) => void;
  onSearch: (search: string) => void;
};

/** Search, filters by label and base model, and order of the list. */
export function Toolbar({ filters, suggestions, onChange, onSearch }: Props) {
  const catalogue = useCatalogue();
  const Icon = filters.ascending ? ArrowUpNarrowWide : ArrowDownWideNarrow;
  return (
    <div className="mb-4 grid gap-2 md:grid-cols-2 md:items-start lg:grid-cols-[minmax(0,1fr)_minmax(0,1fr)_minmax(0,1fr)_auto]">
      <SearchBox label="Search jobs by name or dataset" placeholder="Name or dataset" value={filters.search} onChange={onSearch} />
      <LabelInput
        label="Filter by label"
        placeholder="Filter by label"
        labels={filters.labels}
        suggestions={suggestions}
        onChange={(labels) => onChange({ ...filters, labels, page: 1 })}
      />
      <ModelPicker
        label="Filter by base model"
        placeholder="Filter by base model"
        models={catalogue.data?.base_models ?? []}
        value={filters.baseModel}
        onChange={(baseModel) => onChange({ ...filters, baseModel, page: 1 })}
        onClear={() => onChange({ ...filters, baseModel: null, page: 1 })}
      />
      <div className="flex gap-2">
        <Select
          label="Sort by"
          className="w-44 max-md:grow"
          value={filters.sort}
          text={`Sort: ${SORTS[filters.sort].label}`}
          onChange={(sort) => onChange(sortedBy(filters, sort as JobSort))}
          options={Object.entries(SORTS).map(([value, { label }]) => ({ value, label }))}
        />
        <Button
          size="icon"
          aria-label="Ascending"
          title={filters.ascending ? "Ascending" : "Descending"}
          aria-pressed={filters.ascending}
          onClick={() => onChange(sortedBy(filters, filters.sort))}
        >
          <Icon aria-hidden />
        </Button>
      </div>
    </div>
  );
}
