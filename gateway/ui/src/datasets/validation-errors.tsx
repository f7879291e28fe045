import type { Dataset, ValidationError } from "@/api/types";
import { Button } from "@/components/ui/button";
import { count } from "@/lib/format";

type Props = { dataset: Dataset; onLine?: (line: number) => void };

/** Why a file was refused: each reason once, with the text around it and its first lines. */
export function ValidationErrors({ dataset: { validation_errors: errors, validation_error_count: total }, onLine }: Props) {
  if (errors.length === 0) return <p className="text-sm text-soft">No reason was recorded.</p>;
  const listed = errors.reduce((sum, error) => sum + Math.max(1, error.count), 0);
  return (
    <>
      <ol className="divide-y divide-line overflow-hidden rounded-xl border border-line">
        {errors.map((error, index) => (
          <li key={index} className="gap-4 px-4 py-2.5 text-sm sm:flex">
            <span className="figures block w-36 shrink-0 font-mono text-[0.8125rem] text-bad">{place(error)}</span>
            <div className="min-w-0 grow">
              <p className="break-words">{error.reason}</p>
              {error.text && (
                <code className="mt-1.5 block overflow-x-auto rounded-md bg-sunken px-2 py-1 text-xs whitespace-pre">{error.text}</code>
              )}
              {error.count > 1 && <Lines count={error.count} lines={error.lines} {...(onLine ? { onLine } : {})} />}
            </div>
          </li>
        ))}
      </ol>
      {total > listed && (
        <p className="mt-3 text-sm text-soft">
          {count(total - listed)} more bad rows have further reasons.
        </p>
      )}
    </>
  );
}

function place({ line, column }: ValidationError): string {
  if (line === 0) return "the file";
  return column > 0 ? `line ${count(line)}, col ${count(column)}` : `line ${count(line)}`;
}

type LinesProps = { count: number; lines: number[]; onLine?: (line: number) => void };

/** The first lines with a reason, as buttons that jump to them where there is a preview. */
export function Lines({ count: total, lines, onLine }: LinesProps) {
  return (
    <p className="figures mt-1 flex flex-wrap items-center gap-x-1.5 text-[0.8125rem] text-soft">
      {total > 1 && `${count(total)} times`}
      {lines.some((line) => line > 0) && (total > 1 ? ", on lines" : "On line")}
      {lines.map((line) =>
        line === 0 ? null : onLine ? (
          <Button key={line} variant="ghost" size="small" className="h-6 px-1.5" onClick={() => onLine(line)} aria-label={`Go to line ${line}`}>
            {count(line)}
          </Button>
        ) : (
          <span key={line}>{count(line)}</span>
        ),
      )}
      {total > lines.length && "…"}
    </p>
  );
}
