import { useId, useState, type SyntheticEvent } from "react";

import { explain, type ApiError } from "@/api/errors";
import type { Webhook, WebhookEventType } from "@/api/types";
import { Blocked } from "@/components/blocked";
import { Button } from "@/components/ui/button";
import { Dialog } from "@/components/ui/dialog";
import { Input } from "@/components/ui/input";
import { CHOICES, EVENTS } from "./labels";

export type WebhookValues = { url: string; description: string; event_types: WebhookEventType[]; enabled: boolean };

type Props = {
  /** The webhook to edit; null: a new one. */
  webhook: Webhook | null;
  isSaving: boolean;
  error: ApiError | null;
  onSave: (values: WebhookValues) => void;
  onClose: () => void;
};

export function WebhookForm({ webhook, isSaving, error, onSave, onClose }: Props) {
  const id = useId();
  const [url, setUrl] = useState(webhook?.url ?? "");
  const [description, setDescription] = useState(webhook?.description ?? "");
  const [types, setTypes] = useState<readonly WebhookEventType[]>(webhook?.event_types ?? []);
  const [all, setAll] = useState(types.length === 0);
  const [enabled, setEnabled] = useState(webhook?.enabled ?? true);
  const send = (event: SyntheticEvent) => {
    event.preventDefault();
    onSave({ url: url.trim(), description: description.trim(), event_types: all ? [] : [...types], enabled });
  };
  const message = error && explain(error);
  const blocked = !url.trim() ? "Enter a URL." : !all && types.length === 0 ? "Choose an event." : null;
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && onClose()}
      title={webhook ? "Edit the webhook" : "New webhook"}
      description="Each notification is sent to this URL as a signed POST request, and retried until the receiver accepts it."
    >
      <form onSubmit={send}>
        <label htmlFor={`${id}-url`} className="mb-1.5 block text-sm font-medium">
          URL
        </label>
        <Input
          id={`${id}-url`}
          required
          inputMode="url"
          autoComplete="off"
          spellCheck={false}
          maxLength={2000}
          placeholder="https://example.com/hooks/pipeline"
          value={url}
          aria-invalid={error !== null && (error.reason === "WEBHOOK_URL_REFUSED" || "url" in error.fields)}
          aria-describedby={`${id}-error`}
          onChange={({ target }) => setUrl(target.value)}
        />
        <label htmlFor={`${id}-description`} className="mt-4 mb-1.5 block text-sm font-medium">
          Name <span className="font-normal text-soft">(optional)</span>
        </label>
        <Input id={`${id}-description`} maxLength={200} value={description} onChange={({ target }) => setDescription(target.value)} />
        <fieldset className="mt-4">
          <legend className="mb-1.5 text-sm font-medium">Events</legend>
          <div className="grid gap-1 text-sm">
            <Check type="radio" name={`${id}-what`} label="All events" checked={all} onChange={() => setAll(true)} />
            <Check type="radio" name={`${id}-what`} label="Selected events" checked={!all} onChange={() => setAll(false)} />
          </div>
          {!all && (
            <div className="mt-2 grid gap-1 border-l-2 border-line pl-4 text-sm sm:grid-cols-2">
              {CHOICES.map((type) => (
                <Check
                  key={type}
                  type="checkbox"
                  label={EVENTS[type]}
                  checked={types.includes(type)}
                  onChange={(on) => setTypes(on ? [...types, type] : types.filter((other) => other !== type))}
                />
              ))}
            </div>
          )}
        </fieldset>
        {webhook && (
          <div className="mt-4 border-t border-line pt-3 text-sm">
            <Check type="checkbox" label="Enabled. Disabling it cancels pending deliveries." checked={enabled} onChange={setEnabled} />
          </div>
        )}
        <div id={`${id}-error`}>
          {message && (
            <p role="alert" className="mt-4 rounded-lg bg-bad-soft px-3 py-2 text-sm text-bad">
              <strong className="font-medium">{message.title}.</strong> {message.description}
            </p>
          )}
        </div>
        <div className="mt-6 flex flex-wrap items-center justify-end gap-2">
          <Blocked id={`${id}-blocked`}>{blocked}</Blocked>
          <Button onClick={onClose}>Cancel</Button>
          <Button
            variant="primary"
            type="submit"
            aria-describedby={`${id}-blocked`}
            isBusy={isSaving}
            disabled={isSaving || blocked !== null}
          >
            {webhook ? "Save" : "Create"}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

type CheckProps = { type: "radio" | "checkbox"; name?: string; label: string; checked: boolean; onChange: (on: boolean) => void };

function Check({ type, name, label, checked, onChange }: CheckProps) {
  return (
    <label className="flex min-h-7 cursor-pointer items-center gap-2.5">
      <input
        type={type}
        {...(name ? { name } : {})}
        className="size-4 accent-(--brand)"
        checked={checked}
        onChange={({ target }) => onChange(target.checked)}
      />
      {label}
    </label>
  );
}
