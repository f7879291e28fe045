import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useRef } from "react";

import type { ApiError } from "@/api/errors";

type Callbacks<R> = { onSuccess?: (result: R) => void; onError?: (error: ApiError) => void };

/**
 * A mutation that refreshes the queries whose keys begin with `queryKey`. It ignores calls while one is pending, such as the
 * second click of a double click.
 */
export function useChange<T, R>(queryKey: string, run: (variables: T) => Promise<R>) {
  const queries = useQueryClient();
  const isPending = useRef(false);
  const mutation = useMutation<R, ApiError, T>({
    mutationFn: run,
    onSettled: () => {
      isPending.current = false;
      return queries.invalidateQueries({ queryKey: [queryKey] });
    },
  });
  return {
    ...mutation,
    mutate: (variables: T, callbacks: Callbacks<R> = {}) => {
      if (isPending.current) return;
      isPending.current = true;
      mutation.mutate(variables, callbacks);
    },
  };
}
