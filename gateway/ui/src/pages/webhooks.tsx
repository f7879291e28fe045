import { ChevronDown, KeyRound, Pencil, Plus, Send, Trash2, Webhook as Icon } from "lucide-react";
import { useState } from "react";
import { toast } from "sonner";

import type { ApiError } from "@/api/errors";
import type { Webhook } from "@/api/types";
import { ConfirmDialog } from "@/components/confirm-dialog";
import { PageHeader } from "@/components/page-header";
import { Empty, LoadingRows, Unloaded } from "@/components/states";
import { TimeAgo } from "@/components/time-ago";
import { Badge } from "@/components/ui/badge";
import { Button } from "@/components/ui/button";
import {
  useCreateWebhook,
  useDeleteWebhook,
  useRotateSecret,
  useTestWebhook,
  useUpdateWebhook,
  useWebhooks,
} from "@/webhooks/queries";
import { cn } from "@/lib/cn";
import { showError } from "@/lib/error-toast";
import { moment } from "@/lib/format";
import { Deliveries } from "@/webhooks/deliveries";
import { WebhookForm, type Wanted } from "@/webhooks/form";
import { SecretDialog } from "@/webhooks/secret-dialog";
import { EVENTS, standing } from "@/webhooks/labels";

export function WebhooksPage() {
  const query = useWebhooks();
  // Which one is edited: null none, "new" one that is not there yet.
  const [edited, setEdited] = useState<Webhook | "new" | null>(null);
  const [secret, setSecret] = useState<string | null>(null);
  // One for each webhook that is meant, so that trying again after a lost answer makes no second one.
  const [requestId, setRequestId] = useState("");
  const create = useCreateWebhook();
  const update = useUpdateWebhook();
  const edit = (what: Webhook | "new" | null) => {
    create.reset();
    update.reset();
    setEdited(what);
    setRequestId(crypto.randomUUID());
  };
  const save = ({ enabled, ...wanted }: Wanted) => {
    if (edited === "new") {
      create.mutate({ ...wanted, request_id: requestId }, {
        onSuccess: (made) => {
          edit(null);
          if (made.secret) setSecret(made.secret);
          else toast.info("It is there since your last try", { description: "Its secret was lost on the way: make a new one." });
        },
        onError: (error) => {
          if (error.reason === "IDEMPOTENCY_KEY_REUSED") setRequestId(crypto.randomUUID());
        },
      });
    } else if (edited) {
      update.mutate({ id: edited.id, ...wanted, enabled }, { onSuccess: () => edit(null) });
    }
  };
  const open = (
    <Button variant="primary" onClick={() => edit("new")}>
      <Plus aria-hidden />
      New webhook
    </Button>
  );
  return (
    <>
      <PageHeader title="Webhooks" actions={query.data && query.data.length > 0 && open}>
        Your notifications as signed requests to addresses of yours.
      </PageHeader>
      <section aria-label="Webhooks" aria-busy={query.isFetching} className="grid gap-4 *:min-w-0">
        {query.data ? (
          query.data.length > 0 ? (
            query.data.map((one) => <Shown key={one.id} webhook={one} onEdit={() => edit(one)} onSecret={setSecret} />)
          ) : (
            <div className="panel">
              <Empty icon={Icon} title="No webhooks yet" action={open}>
                Name an address, and whatever happens to your jobs is told there, without anybody asking.
              </Empty>
            </div>
          )
        ) : (
          <div className="panel">
            <Unloaded query={query}>
              <LoadingRows noun="webhooks" />
            </Unloaded>
          </div>
        )}
      </section>
      {edited && (
        <WebhookForm
          webhook={edited === "new" ? null : edited}
          isSaving={create.isPending || update.isPending}
          error={create.error ?? update.error}
          onSave={save}
          onClose={() => edit(null)}
        />
      )}
      {secret && <SecretDialog secret={secret} onClose={() => setSecret(null)} />}
    </>
  );
}

type ShownProps = { webhook: Webhook; onEdit: () => void; onSecret: (secret: string) => void };

function Shown({ webhook, onEdit, onSecret }: ShownProps) {
  const [open, setOpen] = useState(false);
  const [asking, setAsking] = useState<"delete" | "secret" | null>(null);
  const test = useTestWebhook();
  const rotate = useRotateSecret();
  const remove = useDeleteWebhook();
  const { tone, text } = standing(webhook);
  const name = webhook.description || new URL(webhook.url).host;
  const refused = (what: string) => (error: ApiError) => showError(what, error);
  return (
    <article aria-label={name} className="panel p-4 sm:p-5">
      <div className="flex flex-wrap items-center gap-x-3 gap-y-1">
        <h2 className="min-w-0 font-semibold tracking-tight break-words">{name}</h2>
        <Badge tone={tone}>{text}</Badge>
      </div>
      <p className="mt-1 font-mono text-xs break-all text-soft">{webhook.url}</p>
      <p className="mt-1.5 text-[0.8125rem] text-soft">
        {webhook.event_types.length === 0 ? "Everything is sent" : webhook.event_types.map((type) => EVENTS[type]).join(" · ")}
        {webhook.failing_since && (
          <span className="text-warn">
            {" "}
            · every attempt has failed, first <TimeAgo at={webhook.failing_since} />
          </span>
        )}
        {webhook.old_secret_until && ` · the old secret signs too until ${moment(webhook.old_secret_until)}`}
      </p>
      <div className="mt-4 flex flex-wrap gap-2">
        <Button
          size="small"
          isBusy={test.isPending}
          disabled={!webhook.enabled || test.isPending}
          onClick={() => test.mutate(webhook.id, { onSuccess: () => setOpen(true), onError: refused("No test was sent") })}
        >
          {!test.isPending && <Send aria-hidden />}
          Send a test
        </Button>
        <Button size="small" aria-expanded={open} onClick={() => setOpen(!open)}>
          <ChevronDown aria-hidden className={cn("transition-transform", open && "rotate-180")} />
          Deliveries
        </Button>
        <Button size="small" variant="ghost" onClick={onEdit}>
          <Pencil aria-hidden />
          Edit
        </Button>
        <Button size="small" variant="ghost" onClick={() => setAsking("secret")}>
          <KeyRound aria-hidden />
          New secret
        </Button>
        <Button size="small" variant="ghost" className="text-bad hover:text-bad" onClick={() => setAsking("delete")}>
          <Trash2 aria-hidden />
          Delete
        </Button>
      </div>
      {open && <Deliveries id={webhook.id} name={name} />}
      <ConfirmDialog
        open={asking === "delete"}
        title="Delete this webhook?"
        description="Nothing more is sent to it, and the list of what was sent goes with it."
        action="Delete the webhook"
        isBusy={remove.isPending}
        onClose={() => setAsking(null)}
        onConfirm={() => remove.mutate(webhook.id, { onSuccess: () => toast.success("Webhook deleted"), onError: refused("Not deleted") })}
      />
      <ConfirmDialog
        open={asking === "secret"}
        title="Make a new secret?"
        description="Requests are signed with the old one too for another day, so that your receiver can change over."
        action="Make a new secret"
        isBusy={rotate.isPending}
        onClose={() => setAsking(null)}
        onConfirm={() =>
          rotate.mutate(webhook.id, {
            onSuccess: (made) => {
              setAsking(null);
              onSecret(made.secret);
            },
            onError: refused("No new secret"),
          })
        }
      />
    </article>
  );
}
