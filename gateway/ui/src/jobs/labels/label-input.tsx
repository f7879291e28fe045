import { X } from "lucide-react";
import { useId, useState, type ClipboardEvent, type KeyboardEvent } from "react";

import { cn } from "@/lib/cn";
import { MAX_LABEL_LENGTH, MAX_LABELS, withLabels } from "./labels";

type Props = {
  id?: string;
  /** The name of the input, where no label element has its id. */
  label?: string;
  labels: readonly string[];
  placeholder?: string;
  suggestions?: readonly string[];
  /** Whether leaving the box adds the typed label. The box must not grow then, or the click that left it would miss its target. */
  addsOnBlur?: boolean;
  className?: string;
  onChange: (labels: readonly string[]) => void;
};

/** Labels as chips. Enter or a comma adds what is typed; Backspace in the empty box removes the last. */
export function LabelInput({ id, label, labels, placeholder, suggestions = [], addsOnBlur = false, className, onChange }: Props) {
  const [text, setText] = useState("");
  const list = useId();
  const isFull = labels.length >= MAX_LABELS;
  const add = (typed: string) => {
    setText("");
    const changed = withLabels(labels, typed);
    if (changed.length > labels.length) onChange(changed);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    // In an input method Enter confirms a word.
    if (event.nativeEvent.isComposing) return;
    if ((event.key === "Enter" && text.trim()) || event.key === ",") {
      event.preventDefault();
      add(text);
    } else if (event.key === "Backspace" && text === "" && labels.length > 0) onChange(labels.slice(0, -1));
  };
  const onPaste = (event: ClipboardEvent) => {
    const pasted = event.clipboardData.getData("text");
    if (!pasted.includes(",")) return;
    event.preventDefault();
    add(`${text}${pasted}`);
  };
  return (
    <div
      className={cn(
        "flex min-h-9.5 w-full flex-wrap items-center gap-1 rounded-lg border border-line-strong/70 bg-card px-2 py-1 text-sm shadow-xs transition-colors hover:border-line-strong",
        className,
      )}
    >
      {labels.map((one) => (
        <span key={one} className="inline-flex h-7 max-w-full items-center gap-0.5 rounded-md bg-brand-soft pl-2 text-[0.8125rem] text-brand">
          <span className="truncate">{one}</span>
          <button
            type="button"
            aria-label={`Remove label ${one}`}
            className="grid size-7 shrink-0 place-items-center rounded-md hover:bg-sunken"
            onClick={() => onChange(labels.filter((other) => other !== one))}
          >
            <X className="size-3.5" aria-hidden />
          </button>
        </span>
      ))}
      <input
        id={id}
        aria-label={label}
        list={suggestions.length > 0 ? list : undefined}
        autoComplete="off"
        maxLength={MAX_LABEL_LENGTH}
        disabled={isFull}
        placeholder={isFull ? `At most ${MAX_LABELS} labels` : labels.length === 0 ? placeholder : undefined}
        className="h-7 min-w-24 grow rounded-md bg-transparent px-1 -outline-offset-2 placeholder:text-soft"
        value={text}
        onChange={({ target }) => setText(target.value)}
        onKeyDown={onKeyDown}
        onPaste={onPaste}
        onBlur={() => addsOnBlur && text.trim() && add(text)}
      />
      {suggestions.length > 0 && (
        <datalist id={list}>
          {suggestions.filter((one) => !labels.includes(one)).map((one) => (
            <option key={one} value={one} />
          ))}
        </datalist>
      )}
    </div>
  );
}
