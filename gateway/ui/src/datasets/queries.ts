import { keepPreviousData, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";

import { client, dataOf } from "@/api/client";
import { ApiError } from "@/api/errors";
import type { Dataset, DatasetStatus } from "@/api/types";
import { upload, type UploadProgress } from "@/api/upload";
import { count } from "@/lib/format";

const BEING_IMPORTED: ReadonlySet<DatasetStatus> = new Set<DatasetStatus>(["uploading", "validating"]);

type ListQuery = { page?: number; limit?: number; status?: DatasetStatus; search?: string };

/** A page of the caller's datasets, newest first; refreshed while one of them is being imported. */
export function useDatasets(query: ListQuery) {
  return useQuery({
    queryKey: ["datasets", "list", query],
    queryFn: ({ signal }) => dataOf(client.GET("/api/datasets", { params: { query }, signal })),
    placeholderData: keepPreviousData,
    refetchInterval: ({ state }) => (state.data?.datasets.some(({ status }) => BEING_IMPORTED.has(status)) ? 4000 : false),
  });
}

/** The caller's datasets that can be trained on, newest first, as options of a select. */
export function useDatasetOptions(): { value: string; label: string; detail: string }[] {
  const ready = useDatasets({ limit: 100, status: "ready" });
  return (ready.data?.datasets ?? [])
    .filter((dataset) => dataset.training_ready)
    .map(({ id, name, total_training_pairs: pairs }) => ({ value: id, label: name, detail: `${count(pairs ?? 0)} pairs` }));
}

export function useDataset(id: string | null) {
  return useQuery<Dataset, ApiError>({
    queryKey: ["datasets", "one", id],
    queryFn: ({ signal }) => {
      if (id === null) throw new Error("The query is disabled without an id");
      return dataOf(client.GET("/api/datasets/{id}", { params: { path: { id } }, signal }));
    },
    enabled: id !== null,
  });
}

/** Rows of a dataset from a row on, or from a line of its file on. */
export function usePreview(id: string, start: { row: number } | { line: number }, limit: number) {
  return useQuery({
    queryKey: ["datasets", "rows", id, start, limit],
    queryFn: ({ signal }) =>
      dataOf(client.GET("/api/datasets/{id}/rows", { params: { path: { id }, query: { ...start, limit } }, signal })),
    placeholderData: keepPreviousData,
    staleTime: Infinity,
  });
}

type Import = {
  file: File;
  name: string;
  description: string;
  /** `column:role` entries. */
  mapping: readonly string[];
  signal: AbortSignal;
  onProgress: (progress: UploadProgress) => void;
};

export function useImportDataset() {
  const queries = useQueryClient();
  return useMutation<Dataset, ApiError, Import>({
    mutationFn: ({ file, name, description, mapping, signal, onProgress }) => {
      const query = new URLSearchParams({ name, file_name: file.name, ...(description ? { description } : {}) });
      for (const entry of mapping) query.append("mapping", entry);
      return upload<Dataset>(`/api/datasets?${query.toString()}`, file, { signal, onProgress });
    },
    onSettled: () => queries.invalidateQueries({ queryKey: ["datasets"] }),
  });
}

export function useDeleteDataset() {
  const queries = useQueryClient();
  return useMutation<unknown, ApiError, string>({
    mutationFn: (id) => dataOf(client.DELETE("/api/datasets/{id}", { params: { path: { id } } })),
    onSettled: () => queries.invalidateQueries({ queryKey: ["datasets"] }),
  });
}
