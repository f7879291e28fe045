import { KeyRound, Plus, Trash2 } from "lucide-react";
import { useState } from "react";
import { toast } from "sonner";

import type { ApiKey } from "@/api/types";
import { ConfirmDialog } from "@/components/confirm-dialog";
import { PageHeader } from "@/components/page-header";
import { SecretDialog } from "@/components/secret-dialog";
import { Empty, LoadingRows, Unloaded } from "@/components/states";
import { TimeAgo } from "@/components/time-ago";
import { Badge } from "@/components/ui/badge";
import { Button } from "@/components/ui/button";
import { KeyForm } from "@/keys/form";
import { keyState, SCOPES } from "@/keys/labels";
import { useApiKeys, useCreateApiKey, useRevokeApiKey } from "@/keys/queries";
import { serverNow } from "@/lib/clock";
import { showError } from "@/lib/error-toast";
import { moment } from "@/lib/format";

export function KeysPage() {
  const query = useApiKeys();
  const create = useCreateApiKey();
  const [isFormOpen, setFormOpen] = useState(false);
  const [key, setKey] = useState<string | null>(null);
  const show = (open: boolean) => {
    create.reset();
    setFormOpen(open);
  };
  const open = (
    <Button variant="primary" onClick={() => show(true)}>
      <Plus aria-hidden />
      New API key
    </Button>
  );
  return (
    <>
      <PageHeader title="API keys" actions={query.data && query.data.length > 0 && open}>
        Let your programs call the API as you.
      </PageHeader>
      <section aria-label="API keys" aria-busy={query.isFetching} className="panel">
        {query.data ? (
          query.data.length > 0 ? (
            <ul aria-label="API keys, newest first">
              {query.data.map((each) => (
                <KeyRow key={each.id} apiKey={each} />
              ))}
            </ul>
          ) : (
            <Empty icon={KeyRound} title="No API keys yet" action={open}>
              A script or a CI job sends an API key in place of your sign-in.
            </Empty>
          )
        ) : (
          <Unloaded query={query}>
            <LoadingRows noun="API keys" />
          </Unloaded>
        )}
      </section>
      {isFormOpen && (
        <KeyForm
          isSaving={create.isPending}
          error={create.error}
          onSave={(request) =>
            create.mutate(request, {
              onSuccess: (created) => {
                show(false);
                setKey(created.key);
              },
            })
          }
          onClose={() => show(false)}
        />
      )}
      {key && (
        <SecretDialog
          title="Save this key"
          description="It is not shown again. Whoever has it can act as you."
          label="Key"
          secret={key}
          onClose={() => setKey(null)}
        >
          <p className="mt-3 text-sm text-soft">Programs send it in a header:</p>
          <pre tabIndex={0} role="region" aria-label="Example" className="mt-1 overflow-auto rounded-lg bg-sunken px-3 py-2 font-mono text-xs wrap-anywhere whitespace-pre-wrap">
            {`curl -H "Authorization: Bearer $PIPELINE_API_KEY" ${location.origin}/api/jobs`}
          </pre>
        </SecretDialog>
      )}
    </>
  );
}

function KeyRow({ apiKey }: { apiKey: ApiKey }) {
  const [isAsking, setAsking] = useState(false);
  const revoke = useRevokeApiKey();
  const { tone, text } = keyState(apiKey, serverNow());
  return (
    <li className="flex flex-wrap items-center gap-x-4 gap-y-2 border-b border-line px-4 py-3.5 last:border-0 sm:px-5">
      <div className="min-w-0 grow basis-64">
        <div className="flex flex-wrap items-center gap-x-3 gap-y-1">
          <h2 className="min-w-0 font-medium break-words">{apiKey.name}</h2>
          <Badge tone={tone}>{text}</Badge>
        </div>
        <p className="mt-1 text-[0.8125rem] text-soft">
          <span className="font-mono text-xs">{apiKey.prefix}…</span> · {apiKey.scopes.map((scope) => SCOPES[scope].label).join(", ")}
          {` · ${text === "Expired" ? "expired" : "expires"} ${moment(apiKey.expires_at)} · `}
          {apiKey.last_used_at ? (
            <>
              last used <TimeAgo at={apiKey.last_used_at} />
            </>
          ) : (
            "never used"
          )}
        </p>
      </div>
      <Button size="small" variant="ghost" className="text-bad hover:text-bad" aria-label={`Revoke ${apiKey.name}`} onClick={() => setAsking(true)}>
        <Trash2 aria-hidden />
        Revoke
      </Button>
      <ConfirmDialog
        open={isAsking}
        title={`Revoke ${apiKey.name}?`}
        description="Programs that use this key are refused within seconds. This cannot be undone."
        action="Revoke the key"
        isBusy={revoke.isPending}
        onClose={() => setAsking(false)}
        onConfirm={() =>
          revoke.mutate(apiKey.id, {
            onSuccess: () => toast.success("API key revoked"),
            onError: (error) => {
              setAsking(false);
              showError("Not revoked", error);
            },
          })
        }
      />
    </li>
  );
}
