import { Terminal } from "lucide-react";
import { useState } from "react";
import { Link } from "react-router";

import type { CreateJobRequest } from "@/api/types";
import { CodeTabs } from "@/components/code-tabs";
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
  return (
    <Dialog
      open
      size="wide"
      onOpenChange={(open) => !open && onClose()}
      title="Create this job with the API"
      description="Set the environment variable PIPELINE_API_KEY to an API key with the scope “Read and write”."
    >
      <CodeTabs
        label="Language"
        codes={[
          { name: "Python", code: pythonCode(request, window.location.origin) },
          { name: "curl", code: curlCode(request, window.location.origin) },
        ]}
      >
        <span className="flex flex-wrap gap-x-4 gap-y-1 text-sm text-brand">
          <Link to="/keys" className="underline-offset-4 hover:underline">
            API keys
          </Link>
          <Link to="/api/docs" reloadDocument className="underline-offset-4 hover:underline">
            API documentation
          </Link>
        </span>
      </CodeTabs>
    </Dialog>
  );
}
