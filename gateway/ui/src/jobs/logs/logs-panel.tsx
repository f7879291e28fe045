import { Copy, Download, Search } from "lucide-react";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";
import { toast } from "sonner";

import type { Job } from "@/api/types";
import { Failed } from "@/components/states";
import { Button } from "@/components/ui/button";
import { Input } from "@/components/ui/input";
import { Skeleton } from "@/components/ui/skeleton";
import { Panel } from "@/jobs/details/panel";
import { copyText } from "@/lib/clipboard";
import { downloadText } from "@/lib/download";
import { showError } from "@/lib/error-toast";
import { capitalise, count, moment } from "@/lib/format";
import { linesOf, MAX_LINES, textOf, type Log, type LogLine } from "./log";
import { useEarlierLog, useJobLog } from "./queries";

/** Lines that are added to those shown at a time: a browser lays out so many at once without a pause. */
const SHOWN_STEP = 500;

/** The lines that a job's trainers logged, with search, copy and download. */
export function LogsPanel({ job }: { job: Job }) {
  const query = useJobLog(job.id, !job.is_final);
  return (
    <Panel title="Logs">
      {query.data ? (
        <Lines job={job} log={query.data} />
      ) : query.isError ? (
        <Failed error={query.error} onRetry={() => void query.refetch()} />
      ) : (
        <Skeleton className="h-40 w-full" />
      )}
    </Panel>
  );
}

function Lines({ job, log }: { job: Job; log: Log }) {
  const [search, setSearch] = useState("");
  const [shown, setShown] = useState(SHOWN_STEP);
  const earlier = useEarlierLog(job.id);
  const lines = useMemo(() => linesOf(log), [log]);
  const words = search.trim().toLowerCase();
  const matches = useMemo(() => (words ? lines.filter(({ text }) => text.toLowerCase().includes(words)) : lines), [lines, words]);
  const visible = matches.slice(-shown);
  const isFull = lines.length >= MAX_LINES;
  const hasEarlier = visible.length < matches.length || (!log.isComplete && !isFull);

  // A search is over the whole log.
  const needsAll = words !== "" && !log.isComplete && !isFull && !earlier.isPending && !earlier.isError;
  const { mutate: load } = earlier;
  useEffect(() => {
    if (needsAll) load("all");
  }, [needsAll, load]);

  const withAll = (consume: (text: string) => void | Promise<void>) => async () => {
    try {
      const all = linesOf(log.isComplete ? log : await earlier.mutateAsync("all"));
      await consume(textOf(words ? all.filter(({ text }) => text.toLowerCase().includes(words)) : all));
    } catch (error) {
      showError("The log was not loaded", error);
    }
  };
  const copy = withAll((text) =>
    copyText(text).then(
      () => void toast.success("Log copied"),
      () => void toast.error("Not copied", { description: "The browser does not allow it. Download the log instead." }),
    ),
  );
  const download = withAll((text) => downloadText(text, `log-${job.id}.txt`, "text/plain"));
  const showEarlier = () => {
    setShown(shown + SHOWN_STEP);
    if (matches.length < shown + SHOWN_STEP && !log.isComplete && !isFull) load("page");
  };

  if (lines.length === 0 && log.isComplete) {
    return <p className="text-sm text-soft">{job.is_final ? "The trainer logged nothing." : "No lines yet."}</p>;
  }
  return (
    <>
      <div className="mb-3 flex flex-wrap items-center gap-2">
        <div className="relative min-w-40 grow">
          <Search className="pointer-events-none absolute top-1/2 left-3 size-4 -translate-y-1/2 text-soft" aria-hidden />
          <Input
            type="search"
            aria-label="Search the log"
            placeholder="Search"
            value={search}
            onChange={({ target }) => {
              setSearch(target.value);
              setShown(SHOWN_STEP);
              if (earlier.isError) earlier.reset();
            }}
            className="h-8 pl-9"
          />
        </div>
        <Button size="small" onClick={() => void copy()}>
          <Copy aria-hidden />
          Copy
        </Button>
        <Button size="small" onClick={() => void download()}>
          <Download aria-hidden />
          Download
        </Button>
      </div>
      <Viewer lines={visible} words={words} onEarlier={hasEarlier ? showEarlier : null} isLoading={earlier.isPending} />
      <p role="status" className="mt-2 text-[0.8125rem] text-soft">
        <span>{summary(log, lines.length, words ? matches.length : null, earlier.isPending)}</span>
        {earlier.isError && <span className="text-bad"> Earlier lines were not loaded: {earlier.error.message}.</span>}
      </p>
    </>
  );
}

function summary(log: Log, lines: number, matches: number | null, isLoading: boolean): string {
  const extent = log.isComplete ? linesOfLog(lines) : `the newest ${linesOfLog(lines)}`;
  if (matches !== null) return isLoading ? `${count(matches)} found, searching…` : `${count(matches)} of ${extent} match.`;
  return isLoading ? `Loading, ${count(lines)} lines…` : `${capitalise(extent)}.`;
}

const linesOfLog = (number: number) => (number === 1 ? "1 line" : `${count(number)} lines`);

type ViewerProps = { lines: readonly LogLine[]; words: string; onEarlier: (() => void) | null; isLoading: boolean };

/** A box with the lines. While it is scrolled to its end, it follows new lines. */
function Viewer({ lines, words, onEarlier, isLoading }: ViewerProps) {
  const box = useRef<HTMLDivElement>(null);
  const isAtEnd = useRef(true);
  const last = lines.at(-1)?.id;
  useLayoutEffect(() => {
    if (isAtEnd.current) box.current?.scrollTo({ top: box.current.scrollHeight });
  }, [last, lines.length]);
  return (
    <div
      ref={box}
      // A scrolling box needs a tab stop, so that the keyboard can scroll it.
      tabIndex={0}
      role="region"
      aria-label="Log lines"
      translate="no"
      onScroll={({ currentTarget: { scrollTop, scrollHeight, clientHeight } }) => {
        isAtEnd.current = scrollHeight - scrollTop - clientHeight < 8;
      }}
      className="max-h-96 overflow-y-auto rounded-lg bg-sunken px-4 py-3 font-mono text-xs leading-5"
    >
      {onEarlier && (
        <Button size="small" className="mb-2 font-sans" isBusy={isLoading} disabled={isLoading} onClick={onEarlier}>
          Show earlier lines
        </Button>
      )}
      {lines.map(({ id, time, text }) => (
        <p key={id} title={moment(time)} className="wrap-anywhere whitespace-pre-wrap">
          <Marked text={text} words={words} />
        </p>
      ))}
      {lines.length === 0 && words && <p className="font-sans text-soft">No line matches.</p>}
    </div>
  );
}

/** A line with the places where it has the words marked. `words` are in lower case. */
function Marked({ text, words }: { text: string; words: string }) {
  if (!words) return text;
  const parts: React.ReactNode[] = [];
  const lower = text.toLowerCase();
  let from = 0;
  // Where lower case has another length, positions are not those of the text.
  for (let at = lower.length === text.length ? lower.indexOf(words) : -1; at >= 0; at = lower.indexOf(words, from)) {
    parts.push(text.slice(from, at), <mark key={at} className="rounded-sm bg-warn-soft text-warn">{text.slice(at, at + words.length)}</mark>);
    from = at + words.length;
  }
  return [...parts, text.slice(from)];
}
