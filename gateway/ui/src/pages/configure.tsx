import { ArrowLeft, Link2 } from "lucide-react";
import { useEffect, useState } from "react";
import { useNavigate } from "react-router";
import { toast } from "sonner";

import { explain } from "@/api/errors";
import type { Catalogue, Quote } from "@/api/types";
import { CopyButton } from "@/components/ui/copy-button";
import { PageHeader } from "@/components/page-header";
import { Unloaded } from "@/components/states";
import { Button } from "@/components/ui/button";
import { Skeleton } from "@/components/ui/skeleton";
import { Alternatives } from "@/configure/alternatives/alternatives";
import { useCatalogue } from "@/configure/catalogue";
import { OtherGpus } from "@/configure/estimate/other-gpus";
import { EstimateCard } from "@/configure/estimate/estimate-card";
import { MemorySection, memoryWarning } from "@/configure/estimate/memory";
import { usePriceChange } from "@/configure/estimate/price-change";
import { useEstimateCost } from "@/configure/estimate/queries";
import { QuoteBadge } from "@/configure/estimate/quote-badge";
import { BaseModel } from "@/configure/form/base-model";
import { DatasetSection } from "@/configure/form/dataset";
import { Hardware } from "@/configure/form/hardware";
import { HyperparametersSection } from "@/configure/form/hyperparameters";
import { LimitsSection } from "@/configure/form/limits";
import { NameSection } from "@/configure/form/name";
import { Presets } from "@/configure/form/presets";
import { withDataset, withPatch } from "@/configure/model/configuration";
import { deleteDraft, deleteRequestId, getRequestId } from "@/configure/model/draft";
import { createJobRequest, effectiveBatch, estimateRequest } from "@/configure/model/requests";
import { useConfiguration } from "@/configure/model/use-configuration";
import { ApiCodeButton } from "@/jobs/api-code-dialog";
import { useCreateTrainingJob } from "@/jobs/queries";
import { cn } from "@/lib/cn";
import { showError } from "@/lib/error-toast";
import { money } from "@/lib/format";

export function ConfigurePage() {
  const catalogue = useCatalogue();
  const back = useBack();
  return (
    <>
      <PageHeader
        title="Configure training"
        before={
          <Button variant="ghost" size="icon" className="-ml-2 shrink-0" aria-label="Back" onClick={back}>
            <ArrowLeft aria-hidden />
          </Button>
        }
        actions={<CopyLink />}
      />
      {catalogue.data ? (
        <Form catalogue={catalogue.data} onCancel={back} />
      ) : (
        <div className={cn(!catalogue.isLoading && "panel")}>
          <Unloaded query={catalogue}>
            <Loading />
          </Unloaded>
        </div>
      )}
    </>
  );
}

/** Copies the URL, which has the whole configuration. */
function CopyLink() {
  return (
    <CopyButton
      size="small"
      variant="ghost"
      text={() => window.location.href}
      copied="Link copied"
      description="It has the whole configuration."
      icon={<Link2 aria-hidden />}
    >
      <span className="max-sm:sr-only">Copy link</span>
    </CopyButton>
  );
}

/** Goes back to the previous page, or to the datasets if there is none. */
function useBack(): () => void {
  const navigate = useNavigate();
  return () => {
    const { idx } = (window.history.state ?? {}) as { idx?: number };
    void (idx ? navigate(-1) : navigate("/datasets"));
  };
}

function Form({ catalogue, onCancel }: { catalogue: Catalogue; onCancel: () => void }) {
  const { configuration, change, isRestored, startOver } = useConfiguration(catalogue);
  const request = estimateRequest(catalogue, configuration);
  const requestKey = request && JSON.stringify(request);
  const [quoted, setQuoted] = useState<{ requestKey: string; quote: Quote } | null>(null);
  const quote = quoted?.requestKey === requestKey ? quoted.quote : null;
  const [riskAcceptedFor, setRiskAcceptedFor] = useState<string | null>(null);
  const acceptsRisk = riskAcceptedFor !== null && riskAcceptedFor === requestKey;
  const job = request && {
    ...createJobRequest(request, configuration),
    ...(quote ? { quote_id: quote.id } : {}),
    ...(acceptsRisk ? { allow_oom_risk: true } : {}),
  };
  const fingerprint = job && JSON.stringify(job);
  const { estimate, isCurrent, isEstimating, error, retry } = useEstimateCost(request);
  const priceChange = usePriceChange(requestKey, configuration.baseModel, isCurrent ? estimate?.estimated_cost : undefined);
  const create = useCreateTrainingJob();
  const navigate = useNavigate();
  const [requestId, renewRequestId] = useRequestId(isCurrent ? fingerprint : null);

  useEffect(() => {
    if (!error) return;
    const { title, description } = explain(error);
    toast.error(`No estimate: ${title}`, { id: "estimate", description });
  }, [error]);

  const warning = memoryWarning(isCurrent ? (estimate?.memory ?? null) : null, acceptsRisk);
  const canStart = isCurrent && !isEstimating && requestId !== null && !create.isPending && warning === null;
  const start = () => {
    if (!canStart || !job || !estimate || !fingerprint) return;
    create.mutate({ ...job, estimated_cost: estimate.estimated_cost, request_id: requestId }, {
      onSuccess: (created) => {
        deleteDraft(job.dataset_id);
        deleteRequestId(fingerprint);
        toast.success("Training job queued", {
          description: created.estimate_differs
            ? `Its price is ${money(created.estimated_total_cost)}, not ${money(estimate.estimated_cost)}: prices changed.`
            : `${created.dataset.name}, estimated at ${money(created.estimated_total_cost)}.`,
        });
        void navigate(`/training/jobs/${created.id}`);
      },
      onError: (failure) => {
        if (failure.reason === "IDEMPOTENCY_KEY_REUSED") renewRequestId();
        // Without the quote the next attempt can succeed.
        if (failure.reason.startsWith("QUOTE_")) setQuoted(null);
        showError("Not started", failure);
      },
    });
  };

  return (
    <div className="grid items-start gap-5 max-lg:pb-32 lg:grid-cols-[minmax(0,1fr)_21rem]">
      <div className="grid min-w-0 gap-4 *:min-w-0">
        {isRestored && (
          <p role="status" className="flex flex-wrap items-center gap-x-3 gap-y-1 rounded-xl bg-brand-soft px-4 py-2.5 text-sm text-brand">
            <span className="grow">Your draft for this dataset was restored.</span>
            <Button variant="link" size="bare" onClick={startOver}>
              Start over
            </Button>
          </p>
        )}
        <DatasetSection datasetId={configuration.datasetId} onSelect={(datasetId) => change(withDataset(configuration, datasetId))} />
        <BaseModel catalogue={catalogue} configuration={configuration} onChange={change} defaultModel={estimate && !estimate.forecast ? estimate.plan.base_model : null} />
        <Presets catalogue={catalogue} configuration={configuration} onChange={change} />
        <Hardware catalogue={catalogue} configuration={configuration} onChange={change} />
        <HyperparametersSection catalogue={catalogue} configuration={configuration} onChange={change} />
        {/* Below the controls that it depends on: they would move under the pointer. */}
        {request?.base_model && (
          <MemorySection
            memory={estimate?.memory ?? null}
            repairs={estimate?.repairs ?? []}
            repairsNote={estimate?.repairs_note ?? null}
            allowsRisk={acceptsRisk}
            onAllowRisk={(accepted) => setRiskAcceptedFor(accepted ? requestKey : null)}
            onRepair={(repair) => change(withPatch(catalogue, configuration, repair.patch))}
          />
        )}
        <LimitsSection catalogue={catalogue} configuration={configuration} estimate={isCurrent ? estimate : undefined} onChange={change} />
        <NameSection configuration={configuration} onChange={change} />
        <Alternatives catalogue={catalogue} configuration={configuration} request={request} onChange={change} />
        <Button variant="ghost" className="lg:hidden" onClick={onCancel}>
          Cancel
        </Button>
      </div>
      <EstimateCard
        estimate={estimate}
        isForecast={Boolean(request?.base_model)}
        isCurrent={isCurrent}
        isEstimating={isEstimating}
        error={error}
        onRetry={retry}
        change={priceChange}
        missing={request ? null : configuration.datasetId === null ? "Select a dataset first." : "Correct the values marked in red."}
        effectiveBatch={request && effectiveBatch(request)}
        canStart={canStart}
        isStarting={create.isPending}
        warning={warning}
        onStart={start}
        onCancel={onCancel}
      >
        {request && (
          <>
            <OtherGpus catalogue={catalogue} configuration={configuration} request={request} onChange={change} />
            <div className="mt-2">
              <QuoteBadge
                request={request}
                quote={quote}
                isReady={isCurrent}
                blocked={estimate?.forecast?.is_quote === false ? "Too few measured runs to lock a price." : null}
                onQuote={(made) => setQuoted({ requestKey: JSON.stringify(request), quote: made })}
              />
            </div>
          </>
        )}
        {job && <ApiCodeButton request={job} className="mt-2 w-full" />}
      </EstimateCard>
    </div>
  );
}

/**
 * The idempotency key of a configuration. It is read once the configuration is estimated and stays the same from then on, so
 * that a second tab which has started the same job a moment ago and this one use the same key.
 */
function useRequestId(fingerprint: string | null): [id: string | null, renew: () => void] {
  const [current, setCurrent] = useState<{ fingerprint: string; id: string } | null>(null);
  if (fingerprint !== null && current?.fingerprint !== fingerprint) {
    setCurrent({ fingerprint, id: getRequestId(fingerprint) });
  }
  const renew = () => {
    if (fingerprint === null) return;
    deleteRequestId(fingerprint);
    setCurrent({ fingerprint, id: getRequestId(fingerprint) });
  };
  return [fingerprint !== null && current?.fingerprint === fingerprint ? current.id : null, renew];
}

function Loading() {
  return (
    <div role="status" className="grid items-start gap-5 lg:grid-cols-[minmax(0,1fr)_21rem]">
      <span className="sr-only">Loading the catalogue</span>
      <div className="grid gap-4">
        <Skeleton className="h-28 rounded-[0.875rem]" />
        <Skeleton className="h-64 rounded-[0.875rem]" />
        <Skeleton className="h-72 rounded-[0.875rem]" />
      </div>
      <Skeleton className="h-96 rounded-[0.875rem] max-lg:hidden" />
    </div>
  );
}
