import { useId, useState, type SyntheticEvent } from "react";

import { explain, type ApiError } from "@/api/errors";
import type { ApiKeyScope, CreateApiKeyRequest } from "@/api/types";
import { Blocked } from "@/components/blocked";
import { Button } from "@/components/ui/button";
import { Dialog } from "@/components/ui/dialog";
import { Input } from "@/components/ui/input";
import { Select } from "@/components/ui/select";
import { serverNow } from "@/lib/clock";
import { CHOICES, SCOPES } from "./labels";

const DAY_MS = 86_400_000;
const LIFETIMES = [
  { value: "7", label: "7 days" },
  { value: "30", label: "30 days" },
  { value: "90", label: "90 days" },
  { value: "365", label: "1 year" },
];

type Props = {
  isSaving: boolean;
  error: ApiError | null;
  onSave: (request: CreateApiKeyRequest) => void;
  onClose: () => void;
};

export function KeyForm({ isSaving, error, onSave, onClose }: Props) {
  const id = useId();
  const [name, setName] = useState("");
  const [scope, setScope] = useState<ApiKeyScope>("jobs");
  const [days, setDays] = useState("90");
  const send = (event: SyntheticEvent) => {
    event.preventDefault();
    const expiresAt = new Date(serverNow() + Number(days) * DAY_MS).toISOString();
    onSave({ name: name.trim(), scopes: [scope], expires_at: expiresAt });
  };
  const message = error && explain(error);
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && onClose()}
      title="New API key"
      description="A program that sends this key acts as you, within the key's scope."
    >
      <form onSubmit={send}>
        <label htmlFor={`${id}-name`} className="mb-1.5 block text-sm font-medium">
          Name
        </label>
        <Input
          id={`${id}-name`}
          required
          autoComplete="off"
          maxLength={100}
          placeholder="Nightly run"
          value={name}
          aria-describedby={`${id}-error`}
          onChange={({ target }) => setName(target.value)}
        />
        <fieldset className="mt-4">
          <legend className="mb-1.5 text-sm font-medium">Scope</legend>
          <div className="grid gap-2 text-sm">
            {CHOICES.map((choice) => (
              <label key={choice} className="flex min-h-7 cursor-pointer items-start gap-2.5">
                <input
                  type="radio"
                  name={`${id}-scope`}
                  className="mt-0.5 size-4 shrink-0 accent-(--brand)"
                  checked={scope === choice}
                  onChange={() => setScope(choice)}
                />
                <span>
                  {SCOPES[choice].label}
                  <span className="block text-[0.8125rem] text-soft">{SCOPES[choice].detail}</span>
                </span>
              </label>
            ))}
          </div>
        </fieldset>
        <p className="mt-4 mb-1.5 text-sm font-medium" aria-hidden>
          Expires in
        </p>
        <Select label="Expires in" value={days} options={LIFETIMES} onChange={setDays} className="w-full" />
        <div id={`${id}-error`}>
          {message && (
            <p role="alert" className="mt-4 rounded-lg bg-bad-soft px-3 py-2 text-sm text-bad">
              <strong className="font-medium">{message.title}.</strong> {message.description}
            </p>
          )}
        </div>
        <div className="mt-6 flex flex-wrap items-center justify-end gap-2">
          <Blocked id={`${id}-blocked`}>{name.trim() ? null : "Enter a name."}</Blocked>
          <Button onClick={onClose}>Cancel</Button>
          <Button
            variant="primary"
            type="submit"
            aria-describedby={`${id}-blocked`}
            isBusy={isSaving}
            disabled={isSaving || !name.trim()}
          >
            Create
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
