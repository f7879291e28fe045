import { TriangleAlert } from "lucide-react";

import type { Dataset } from "@/api/types";
import { Lines } from "./validation-errors";

type Props = { dataset: Dataset; onLine?: (line: number) => void };

/** What was imported otherwise than its author may have meant. */
export function ValidationWarnings({ dataset: { validation_warnings: warnings }, onLine }: Props) {
  return (
    <ul aria-label="Warnings" className="divide-y divide-line overflow-hidden rounded-xl border border-line">
      {warnings.map(({ kind, message, count, lines }) => (
        <li key={`${kind} ${message}`} className="flex gap-3 px-4 py-2.5 text-sm">
          <TriangleAlert className="mt-0.5 size-4 shrink-0 text-warn" aria-hidden />
          <div className="min-w-0">
            <p className="break-words first-letter:uppercase">{message}.</p>
            <Lines count={count} lines={lines} {...(onLine ? { onLine } : {})} />
          </div>
        </li>
      ))}
    </ul>
  );
}
