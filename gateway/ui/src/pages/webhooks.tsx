import { ChevronDown, KeyRound, Pencil, Plus, Send, Trash2, Webhook as Icon } from "lucide-react";
import { useState } from "react";
import { toast } from "sonner";

import type { ApiError } from "@/api/errors";
import type { Webhook } from "@/api/types";
import { ConfirmDialog } from "@/components/confirm-dialog";
import { PageHeader } from "@/components/page-header";
import { SecretDialog } from "@/components/secret-dialog";
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
import { serverNow } from "@/lib/clock";
import { cn } from "@/lib/cn";
import { randomId } from "@/lib/random-id";
import { showError } from "@/lib/error-toast";
import { moment } from "@/lib/format";
import { Deliveries } from "@/webhooks/deliveries";
import { WebhookForm, type WebhookValues } from "@/webhooks/form";
import { EVENTS, webhookState } from "@/webhooks/labels";

export function WebhooksPage() {
  const query = useWebhooks();
  // The webhook in the form; null: the form is closed.
  const [edited, setEdited] = useState<Webhook | "new" | null>(null);
  const [secret, setSecret] = useState<string | null>(null);
  // An idempotency key for each opening of the form, so that a retry after a lost response creates no second webhook.
  const [requestId, setRequestId] = useState("");
  const create = useCreateWebhook();
  const update = useUpdateWebhook();
  const edit = (webhook: Webhook | "new" | null) => {
    create.reset();
    update.reset();
    setEdited(webhook);
    setRequestId(randomId());
  };
  const save = ({ enabled, ...values }: WebhookValues) => {
    if (edited === "new") {
      create.mutate({ ...values, request_id: requestId }, {
        onSuccess: (created) => {
          edit(null);
          if (created.secret) setSecret(created.secret);
          else toast.info("The webhook already exists", { description: "An earlier attempt created it and its secret was not received. Create a new secret." });
        },
        onError: (error) => {
          if (error.reason === "IDEMPOTENCY_KEY_REUSED") setRequestId(randomId());
        },
      });
    } else if (edited) {
      update.mutate({ id: edited.id, ...values, enabled }, { onSuccess: () => edit(null) });
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
        Sends your notifications to your own URLs as signed requests.
      </PageHeader>
      <section aria-label="Webhooks" aria-busy={query.isFetching} className="grid gap-4 *:min-w-0">
        {query.data ? (
          query.data.length > 0 ? (
            query.data.map((webhook) => (
              <WebhookCard key={webhook.id} webhook={webhook} onEdit={() => edit(webhook)} onSecret={setSecret} />
            ))
          ) : (
            <div className="panel">
              <Empty icon={Icon} title="No webhooks yet" action={open}>
                A webhook sends the events of your jobs to your own URL.
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
      {secret && (
        <SecretDialog
          title="Save this secret"
          description="Your receiver verifies the signature of requests with it. It is not shown again."
          label="Secret"
          secret={secret}
          onClose={() => setSecret(null)}
        >
          <p className="mt-3 text-sm text-pretty text-soft">
            Signatures follow the Standard Webhooks specification, which has libraries for many languages.
          </p>
        </SecretDialog>
      )}
    </>
  );
}

type CardProps = { webhook: Webhook; onEdit: () => void; onSecret: (secret: string) => void };

function WebhookCard({ webhook, onEdit, onSecret }: CardProps) {
  const [open, setOpen] = useState(false);
  const [confirming, setConfirming] = useState<"delete" | "secret" | null>(null);
  const test = useTestWebhook();
  const rotate = useRotateSecret();
  const remove = useDeleteWebhook();
  const { tone, text } = webhookState(webhook);
  const name = webhook.description || new URL(webhook.url).host;
  const onError = (failure: string) => (error: ApiError) => showError(failure, error);
  return (
    <article aria-label={name} className="panel p-4 sm:p-5">
      <div className="flex flex-wrap items-center gap-x-3 gap-y-1">
        <h2 className="min-w-0 font-semibold tracking-tight break-words">{name}</h2>
        <Badge tone={tone}>{text}</Badge>
      </div>
      <p className="mt-1 font-mono text-xs break-all text-soft">{webhook.url}</p>
      <p className="mt-1.5 text-[0.8125rem] text-soft">
        {webhook.event_types.length === 0 ? "All events" : webhook.event_types.map((type) => EVENTS[type]).join(" · ")}
        {webhook.failing_since && (
          <span className="text-warn">
            {" "}
            · failing since <TimeAgo at={webhook.failing_since} />
          </span>
        )}
        {webhook.paused_until &&
          new Date(webhook.paused_until).getTime() > serverNow() &&
          ` · paused until ${moment(webhook.paused_until)}, as its receiver asked`}
        {webhook.old_secret_until && ` · the old secret is valid until ${moment(webhook.old_secret_until)}`}
      </p>
      <div className="mt-4 flex flex-wrap gap-2">
        <Button
          size="small"
          isBusy={test.isPending}
          disabled={!webhook.enabled || test.isPending}
          onClick={() => test.mutate(webhook.id, { onSuccess: () => setOpen(true), onError: onError("No test was sent") })}
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
        <Button size="small" variant="ghost" onClick={() => setConfirming("secret")}>
          <KeyRound aria-hidden />
          New secret
        </Button>
        <Button size="small" variant="ghost" className="text-bad hover:text-bad" onClick={() => setConfirming("delete")}>
          <Trash2 aria-hidden />
          Delete
        </Button>
      </div>
      {open && <Deliveries id={webhook.id} name={name} />}
      <ConfirmDialog
        open={confirming === "delete"}
        title="Delete this webhook?"
        description="Pending deliveries are cancelled, and the list of its deliveries is deleted."
        action="Delete the webhook"
        isBusy={remove.isPending}
        onClose={() => setConfirming(null)}
        onConfirm={() => remove.mutate(webhook.id, { onSuccess: () => toast.success("Webhook deleted"), onError: onError("Not deleted") })}
      />
      <ConfirmDialog
        open={confirming === "secret"}
        title="Create a new secret?"
        description="Requests are signed with both secrets for one day, so that your receiver can change over."
        action="Create a new secret"
        isBusy={rotate.isPending}
        onClose={() => setConfirming(null)}
        onConfirm={() =>
          rotate.mutate(webhook.id, {
            onSuccess: (created) => {
              setConfirming(null);
              onSecret(created.secret);
            },
            onError: onError("No secret was created"),
          })
        }
      />
    </article>
  );
}
