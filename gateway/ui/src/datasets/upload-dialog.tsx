import { FileJson, RotateCcw, Upload } from "lucide-react";
import { useEffect, useRef, useState, type DragEvent, type SyntheticEvent } from "react";
import { useNavigate } from "react-router";
import { toast } from "sonner";

import { explain } from "@/api/errors";
import type { Dataset } from "@/api/types";
import type { UploadProgress } from "@/api/upload";
import { useImportDataset } from "./queries";
import { cn } from "@/lib/cn";
import { bytes, count } from "@/lib/format";
import { ValidationErrors } from "./validation-errors";
import { Blocked } from "@/components/blocked";
import { Button } from "@/components/ui/button";
import { Dialog } from "@/components/ui/dialog";
import { Input } from "@/components/ui/input";
import { Progress } from "@/components/ui/progress";

export function UploadDialog({ initial, onClose }: { initial: File | null; onClose: () => void }) {
  const [file, setFile] = useState(initial);
  const [name, setName] = useState(initial ? nameOf(initial) : "");
  const [mapping, setMapping] = useState("");
  const [progress, setProgress] = useState<UploadProgress | null>(null);
  const [refused, setRefused] = useState<Dataset | null>(null);
  const stop = useRef<AbortController | null>(null);
  const importing = useImportDataset();
  const navigate = useNavigate();
  useEffect(() => () => stop.current?.abort(), []);
  useEffect(() => {
    if (!importing.isPending) return;
    // The browser asks for confirmation before it leaves the page.
    const confirmLeaving = (event: BeforeUnloadEvent) => event.preventDefault();
    window.addEventListener("beforeunload", confirmLeaving);
    return () => window.removeEventListener("beforeunload", confirmLeaving);
  }, [importing.isPending]);

  const choose = (chosen: File) => {
    setFile(chosen);
    setName((current) => current || nameOf(chosen));
    setRefused(null);
    importing.reset();
  };
  // The browser cannot read a chosen file after it has changed on disk.
  const startOver = () => {
    setFile(null);
    if (file && name === nameOf(file)) setName("");
    setRefused(null);
  };
  const send = (event: SyntheticEvent) => {
    event.preventDefault();
    if (!file || !name.trim() || importing.isPending) return;
    stop.current = new AbortController();
    setRefused(null);
    setProgress({ sent: 0, total: file.size });
    importing.mutate(
      { file, name: name.trim(), description: "", mapping: entriesOf(mapping), signal: stop.current.signal, onProgress: setProgress },
      {
        onSuccess: (dataset) => {
          if (dataset.status === "error") {
            setRefused(dataset);
            return;
          }
          const warnings = dataset.validation_warnings.length;
          const counted = `${dataset.name}: ${count(dataset.total_training_pairs ?? 0)} pairs, ${count(dataset.total_tokens ?? 0)} tokens`;
          toast.success(warnings > 0 ? "Dataset ready, with warnings" : "Dataset ready", {
            description: counted,
            action: {
              label: "Train on it",
              onClick: () => void navigate(`/training/configure?datasetId=${dataset.id}`),
            },
          });
          onClose();
          if (warnings > 0) void navigate(`/datasets/${dataset.id}`);
        },
      },
    );
  };
  const failure = importing.error && importing.error.name !== "AbortError" ? explain(importing.error) : null;

  return (
    <Dialog
      open
      onOpenChange={(open) => !open && onClose()}
      title={refused ? "This file has bad rows" : "Upload a dataset"}
      description={
        refused
          ? `${refused.validation_error_count === 1 ? "1 row of" : `${count(refused.validation_error_count)} rows of`} “${refused.name}” cannot be trained on, so the file was not stored. Correct them and upload it again.`
          : "JSON Lines, JSON, CSV or Parquet, also compressed: conversations, instructions, prompts with completions, or texts."
      }
      size={refused === null ? "normal" : "wide"}
      requiresExplicitClose={importing.isPending}
    >
      {refused ? (
        <>
          <ValidationErrors dataset={refused} />
          <div className="mt-5 flex justify-end gap-2">
            <Button onClick={onClose}>Close</Button>
            <Button variant="primary" onClick={startOver}>
              <RotateCcw aria-hidden />
              Choose the corrected file
            </Button>
          </div>
        </>
      ) : (
        <form onSubmit={send}>
          {importing.isPending && progress && file ? (
            <Sending file={file} progress={progress} />
          ) : (
            <Chooser file={file} onFile={choose} />
          )}
          <label htmlFor="dataset-name" className="mt-5 mb-1.5 block text-sm font-medium">
            Name
          </label>
          <Input
            id="dataset-name"
            required
            maxLength={200}
            value={name}
            disabled={importing.isPending}
            onChange={({ target }) => setName(target.value)}
          />
          <details className="mt-4 text-sm">
            <summary className="cursor-pointer text-soft">Columns with other names</summary>
            <label htmlFor="dataset-mapping" className="mt-3 mb-1.5 block font-medium">
              Column mapping
            </label>
            <Input
              id="dataset-mapping"
              placeholder="question_text:user, reply:assistant"
              aria-describedby="dataset-mapping-help"
              value={mapping}
              disabled={importing.isPending}
              onChange={({ target }) => setMapping(target.value)}
            />
            <p id="dataset-mapping-help" className="mt-1.5 text-[0.8125rem] text-soft">
              Column and role, separated by commas. Roles: system, user, assistant, prompt, completion, text, messages, tools, ignore.
            </p>
          </details>
          {failure && (
            <p role="alert" className="mt-4 rounded-lg bg-bad-soft px-3 py-2 text-sm text-bad">
              <strong className="font-medium">{failure.title}.</strong> {failure.description}
            </p>
          )}
          <div className="mt-6 flex flex-wrap items-center justify-end gap-2">
            <Blocked id="upload-blocked">{importing.isPending ? null : !file ? "Choose a file first." : !name.trim() ? "Enter a name." : null}</Blocked>
            <Button onClick={onClose}>{importing.isPending ? "Stop the upload" : "Cancel"}</Button>
            <Button
              variant="primary"
              type="submit"
              aria-describedby="upload-blocked"
              isBusy={importing.isPending}
              disabled={!file || !name.trim() || importing.isPending}
            >
              {!importing.isPending && <Upload aria-hidden />}
              {importing.isPending ? "Uploading" : "Upload"}
            </Button>
          </div>
        </form>
      )}
    </Dialog>
  );
}

function nameOf(file: File): string {
  return file.name.replace(/\.(gz|zst)$/i, "").replace(/\.(jsonl|ndjson|json|csv|tsv|parquet|txt)$/i, "").slice(0, 200);
}

function entriesOf(mapping: string): string[] {
  return mapping.split(",").map((entry) => entry.trim()).filter(Boolean);
}

function Chooser({ file, onFile }: { file: File | null; onFile: (file: File) => void }) {
  const [over, setOver] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const onDrop = (event: DragEvent) => {
    event.preventDefault();
    event.stopPropagation();
    setOver(false);
    const dropped = event.dataTransfer.files[0];
    if (dropped) onFile(dropped);
  };
  return (
    <div
      onDrop={onDrop}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      className={cn(
        "rounded-xl border border-dashed border-line-strong px-5 py-8 text-center transition-colors",
        over && "border-brand bg-brand-soft",
      )}
    >
      <FileJson className="mx-auto size-7 text-soft" aria-hidden />
      <p className="mt-3 text-sm">
        {file ? (
          <>
            <span className="font-medium break-all">{file.name}</span>{" "}
            <span className="figures text-soft">{bytes(file.size)}</span>
          </>
        ) : (
          "Drop a file here"
        )}
      </p>
      <Button size="small" className="mt-3" onClick={() => input.current?.click()}>
        {file ? "Choose another file" : "Choose a file"}
      </Button>
      <input
        ref={input}
        type="file"
        accept=".jsonl,.ndjson,.json,.csv,.tsv,.parquet,.gz,.zst,application/jsonl,application/x-ndjson"
        aria-label="File"
        className="sr-only"
        tabIndex={-1}
        onChange={({ target }) => {
          const chosen = target.files?.[0];
          if (chosen) onFile(chosen);
          target.value = "";
        }}
      />
    </div>
  );
}

function Sending({ file, progress: { sent, total } }: { file: File; progress: UploadProgress }) {
  const percent = total === 0 ? 100 : (sent / total) * 100;
  const checking = sent >= total;
  return (
    <div className="rounded-xl border border-line px-5 py-6">
      <p className="flex justify-between gap-4 text-sm">
        <span className="truncate font-medium">{file.name}</span>
        <span className="figures whitespace-nowrap text-soft">
          {checking ? bytes(total) : `${bytes(sent)} of ${bytes(total)}`}
        </span>
      </p>
      <Progress label="Upload" percent={checking ? null : percent} className="mt-3" />
      <p role="status" className="mt-2.5 text-[0.8125rem] text-soft">
        {checking ? "Checking every row and counting tokens…" : `${Math.floor(percent)} % sent`}
      </p>
    </div>
  );
}
