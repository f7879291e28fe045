import { Terminal } from "lucide-react";
import { Tabs } from "radix-ui";
import { useState } from "react";
import { Link } from "react-router";

import type { CreateJobRequest } from "@/api/types";
import { CopyButton } from "@/components/copy-button";
import { Button } from "@/components/ui/button";
import { Dialog } from "@/components/ui/dialog";
import { curlCode, pythonCode } from "./api-code";

type Props = { request: CreateJobRequest; className?: string };

/** A button that shows how to create a job by the API, in Python and with curl. */
export function ApiCodeButton({ request, className }: Props) {
  const [open, setOpen] = useState(false);
  return (
    <>
      <Button {...(className ? { className } : {})} onClick={() => setOpen(true)}>
        <Terminal aria-hidden />
        API code
      </Button>
      {open && <ApiCodeDialog request={request} onClose={() => setOpen(false)} />}
    </>
  );
}

function ApiCodeDialog({ request, onClose }: { request: CreateJobRequest; onClose: () => void }) {
  const codes = [
    { name: "Python", code: pythonCode(request, window.location.origin) },
    { name: "curl", code: curlCode(request, window.location.origin) },
  ];
  return (
    <Dialog
      open
      size="wide"
      onOpenChange={(open) => !open && onClose()}
      title="Create this job by the API"
      description="Set PIPELINE_TOKEN to an access token."
    >
      <Tabs.Root defaultValue="Python">
        <Tabs.List aria-label="Language" className="flex gap-1">
          {codes.map(({ name }) => (
            <Tabs.Trigger
              key={name}
              value={name}
              className="h-8 cursor-pointer rounded-lg px-3 text-[0.8125rem] font-medium text-soft hover:bg-sunken data-[state=active]:bg-brand-soft data-[state=active]:text-brand"
            >
              {name}
            </Tabs.Trigger>
          ))}
        </Tabs.List>
        {codes.map(({ name, code }) => (
          <Tabs.Content key={name} value={name} className="mt-2">
            <pre
              tabIndex={0}
              role="region"
              aria-label={`${name} code`}
              className="max-h-80 overflow-auto rounded-lg bg-sunken px-4 py-3 font-mono text-xs whitespace-pre"
            >
              {code}
            </pre>
            <div className="mt-4 flex items-center justify-between gap-3">
              <Link to="/api/docs" reloadDocument className="text-sm text-brand underline-offset-4 hover:underline">
                API documentation
              </Link>
              <CopyButton variant="primary" text={code} copied="Copied">
                {`Copy as ${name}`}
              </CopyButton>
            </div>
          </Tabs.Content>
        ))}
      </Tabs.Root>
    </Dialog>
  );
}
