import type { Dataset } from "@/api/types";
import { count } from "@/lib/format";

/** The invalid lines of a dataset, with their reasons. */
export function ValidationErrors({ dataset: { validation_errors: errors, validation_error_count: total } }: { dataset: Dataset }) {
  if (errors.length === 0) return <p className="text-sm text-soft">No line was named.</p>;
  return (
    <>
      <ol className="divide-y divide-line overflow-hidden rounded-xl border border-line">
        {errors.map(({ line, reason }, index) => (
          <li key={index} className="flex gap-4 px-4 py-2.5 text-sm">
            <span className="figures w-20 shrink-0 font-mono text-[0.8125rem] text-bad">
              {line === 0 ? "the file" : `line ${count(line)}`}
            </span>
            <span className="min-w-0 break-words">{reason}</span>
          </li>
        ))}
      </ol>
      {total > errors.length && (
        <p className="mt-3 text-sm text-soft">
          The first {count(errors.length)} of {count(total)} invalid lines.
        </p>
      )}
    </>
  );
}
