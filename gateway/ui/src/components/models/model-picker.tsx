import { Check, ChevronsUpDown, X } from "lucide-react";
import { Popover } from "radix-ui";
import { useId, useRef, useState, type KeyboardEvent } from "react";

import type { Catalogue } from "@/api/types";
import { cn } from "@/lib/cn";
import { modelFacts } from "./model-facts";

type BaseModel = Catalogue["base_models"][number];
type Props = {
  label: string;
  models: readonly BaseModel[];
  value: string | null;
  /** Shown while nothing is selected. Default: how many models there are to search. */
  placeholder?: string;
  onChange: (id: string) => void;
  /** Makes the selection optional: a button clears it. */
  onClear?: () => void;
};

/** A searchable list of base models. A text matches ids, families and the names that publishers use. */
export function ModelPicker({ label, models, value, placeholder = `Search ${models.length} models`, onChange, onClear }: Props) {
  const [open, setOpen] = useState(false);
  const [text, setText] = useState("");
  const [active, setActive] = useState(0);
  const input = useRef<HTMLInputElement>(null);
  const list = useRef<HTMLUListElement>(null);
  const id = useId();
  const matches = models.filter((model) => isMatch(model, text));
  const show = () => {
    if (open) return;
    setText("");
    const selected = models.findIndex((model) => model.id === value);
    activate(Math.max(0, selected));
    setOpen(true);
  };
  const close = () => {
    setOpen(false);
    setText("");
  };
  const select = (model: BaseModel | undefined) => {
    if (!model) return;
    onChange(model.id);
    close();
  };
  const activate = (index: number) => {
    setActive(index);
    // The list may be rendered by this very change.
    requestAnimationFrame(() => list.current?.children[index]?.scrollIntoView({ block: "nearest" }));
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "Tab") {
      close();
      return;
    }
    if (!open) {
      if (["ArrowDown", "ArrowUp", "Enter"].includes(event.key)) {
        event.preventDefault();
        show();
      }
      return;
    }
    const last = matches.length - 1;
    const index = { ArrowDown: active + 1, ArrowUp: active - 1, PageDown: active + 8, PageUp: active - 8, Home: 0, End: last }[event.key];
    if (index !== undefined) {
      event.preventDefault();
      activate(Math.min(last, Math.max(0, index)));
    } else if (event.key === "Enter") {
      event.preventDefault();
      select(matches[active]);
    }
  };
  return (
    <Popover.Root open={open} onOpenChange={(on) => (on ? show() : close())}>
      <Popover.Anchor className="relative">
        <input
          ref={input}
          role="combobox"
          aria-label={label}
          aria-expanded={open}
          aria-controls={`${id}-list`}
          aria-autocomplete="list"
          aria-activedescendant={open && matches.length > 0 ? `${id}-${active}` : undefined}
          autoComplete="off"
          spellCheck={false}
          placeholder={placeholder}
          value={open ? text : (value ?? "")}
          onChange={({ target }) => {
            if (!open) setOpen(true);
            setText(target.value);
            activate(0);
          }}
          onClick={show}
          onKeyDown={onKeyDown}
          className="h-9.5 w-full rounded-lg border border-line-strong/70 bg-card pr-9 pl-3 text-sm shadow-xs transition-colors placeholder:text-soft hover:border-line-strong"
        />
        {onClear && value !== null ? (
          <button
            type="button"
            aria-label="Any base model"
            className="absolute top-1/2 right-1.5 grid size-7 -translate-y-1/2 place-items-center rounded-md text-soft hover:bg-sunken hover:text-ink"
            onClick={onClear}
          >
            <X className="size-3.5" aria-hidden />
          </button>
        ) : (
          <ChevronsUpDown className="pointer-events-none absolute top-1/2 right-3 size-4 -translate-y-1/2 text-soft" aria-hidden />
        )}
      </Popover.Anchor>
      <Popover.Portal>
        <Popover.Content
          align="start"
          sideOffset={6}
          collisionPadding={12}
          aria-label="Base models"
          onOpenAutoFocus={(event) => event.preventDefault()}
          onCloseAutoFocus={(event) => event.preventDefault()}
          onInteractOutside={(event) => {
            if (input.current?.contains(event.target as Node)) event.preventDefault();
          }}
          className="z-50 w-(--radix-popover-trigger-width) min-w-72 overflow-hidden rounded-xl border border-line bg-raised shadow-pop data-[state=open]:animate-[pop-in_120ms]"
        >
          <ul ref={list} id={`${id}-list`} role="listbox" aria-label="Base models" className="max-h-80 overflow-y-auto p-1">
            {matches.map((model, index) => (
              <li
                key={model.id}
                id={`${id}-${index}`}
                role="option"
                aria-selected={model.id === value}
                onPointerMove={() => setActive(index)}
                onClick={() => select(model)}
                className={cn("flex cursor-pointer items-center gap-2 rounded-lg py-1.5 pr-3 pl-2 text-sm select-none", index === active && "bg-sunken")}
              >
                <span className="flex w-4 shrink-0 justify-center">
                  {model.id === value && <Check className="size-4 text-brand" aria-hidden />}
                </span>
                <span className="min-w-0">
                  <span className="block truncate">{model.id}</span>
                  <span className="figures block truncate text-xs text-soft">{modelFacts(model)}</span>
                </span>
              </li>
            ))}
          </ul>
          {matches.length === 0 && (
            <p role="status" className="px-4 pb-4 text-sm text-soft">
              No model matches “{text}”.
            </p>
          )}
        </Popover.Content>
      </Popover.Portal>
    </Popover.Root>
  );
}

function isMatch({ id, family, aliases, source }: BaseModel, text: string): boolean {
  const names = [id, family, source, ...aliases].join(" ").toLowerCase();
  return text.toLowerCase().split(/\s+/).every((word) => names.includes(word));
}
