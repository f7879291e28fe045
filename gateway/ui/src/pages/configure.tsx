import { ArrowLeft, Link2 } from "lucide-react";
import { useEffect, useState } from "react";
import { useNavigate } from "react-router";
import { toast } from "sonner";

import { explain } from "@/api/errors";
import type { Catalogue, Quote } from "@/api/types";
import { PageHeader } from "@/components/page-header";
import { Unloaded } from "@/components/states";
import { Button } from "@/components/ui/button";
import { Skeleton } from "@/components/ui/skeleton";
import { Alternatives } from "@/configure/alternatives/alternatives";
import { BaseModel } from "@/configure/form/base-model";
import { DatasetSection } from "@/configure/form/dataset";
import { EstimateCard } from "@/configure/estimate/estimate-card";
import { Hardware } from "@/configure/form/hardware";
import { HyperparametersSection } from "@/configure/form/hyperparameters";
import { memoryObstacle, MemorySection } from "@/configure/estimate/memory";
import { Presets } from "@/configure/form/presets";
import { QuoteBadge } from "@/configure/estimate/quote-badge";
import { LimitsSection } from "@/configure/form/limits";
import { useConfiguration } from "@/configure/model/use-configuration";
import { usePriceChange } from "@/configure/estimate/price-change";
import { cn } from "@/lib/cn";
import { useCatalogue } from "@/configure/catalogue";
import { useCreateTrainingJob, useEstimateCost } from "@/jobs/queries";
import { creation, question, withPatch } from "@/configure/model/configuration";
import { dropDraft, dropRequestId, requestIdOf } from "@/configure/model/draft";
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
        actions={
          <Button
            size="small"
            variant="ghost"
            onClick={() => {
              navigator.clipboard.writeText(window.location.href).then(
                () => toast.success("Link copied", { description: "It holds the whole configuration." }),
                () => toast.error("The link could not be copied", { description: "Copy it from the address bar." }),
              );
            }}
          >
            <Link2 aria-hidden />
            <span className="max-sm:sr-only">Copy link</span>
          </Button>
        }
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

/** Back to where the person came from; to the datasets for one who came by a link. */
function useBack(): () => void {
  const navigate = useNavigate();
  return () => {
    const { idx } = (window.history.state ?? {}) as { idx?: number };
    void (idx ? navigate(-1) : navigate("/datasets"));
  };
}

function Form({ catalogue, onCancel }: { catalogue: Catalogue; onCancel: () => void }) {
  const { configuration, change, isRestored, startOver } = useConfiguration(catalogue);
  const asked = question(catalogue, configuration);
  const askedKey = asked && JSON.stringify(asked);
  const [quoted, setQuoted] = useState<{ asked: string; quote: Quote } | null>(null);
  const quote = quoted?.asked === askedKey ? quoted.quote : null;
  const [riskAllowedFor, setRiskAllowedFor] = useState<string | null>(null);
  const allowsRisk = riskAllowedFor !== null && riskAllowedFor === askedKey;
  const job = asked && {
    ...creation(asked, configuration),
    ...(quote ? { quote_id: quote.id } : {}),
    ...(allowsRisk ? { allow_oom_risk: true } : {}),
  };
  const fingerprint = job && JSON.stringify(job);
  const { estimate, isCurrent, isEstimating, error, retry } = useEstimateCost(asked);
  const moved = usePriceChange(askedKey, isCurrent ? estimate?.estimated_cost : undefined);
  const create = useCreateTrainingJob();
  const navigate = useNavigate();
  const [requestId, renew] = useRequestId(isCurrent ? fingerprint : null);

  useEffect(() => {
    if (!error) return;
    const { title, description } = explain(error);
    toast.error(`No estimate: ${title}`, { id: "estimate", description });
  }, [error]);

  const memory = isCurrent ? (estimate?.memory ?? null) : null;
  const tooLarge = memoryObstacle(memory, allowsRisk);
  const canStart = isCurrent && !isEstimating && requestId !== null && !create.isPending && tooLarge === null;
  const start = () => {
    if (!canStart || !job || !estimate || !fingerprint) return;
    create.mutate({ ...job, estimated_cost: estimate.estimated_cost, request_id: requestId }, {
      onSuccess: (made) => {
        dropDraft(job.dataset_id);
        dropRequestId(fingerprint);
        toast.success("Training job queued", {
          description: made.estimate_differs
            ? `The price is ${money(made.estimated_total_cost)} now, not the ${money(estimate.estimated_cost)} you saw.`
            : `${made.dataset.name} starts shortly, for about ${money(made.estimated_total_cost)}.`,
        });
        void navigate(`/training/jobs/${made.id}`);
      },
      onError: (failure) => {
        if (failure.reason === "IDEMPOTENCY_KEY_REUSED") renew();
        // A quote that does not hold any more would stand in the way of every other try.
        if (failure.reason.startsWith("QUOTE_")) setQuoted(null);
        showError("Not started", failure);
      },
    });
  };

  return (
    <div className="grid items-start gap-5 max-lg:pb-28 lg:grid-cols-[minmax(0,1fr)_21rem]">
      <div className="grid min-w-0 gap-4 *:min-w-0">
        {isRestored && (
          <p role="status" className="flex flex-wrap items-center gap-x-3 gap-y-1 rounded-xl bg-brand-soft px-4 py-2.5 text-sm text-brand">
            <span className="grow">Your draft for this dataset is back.</span>
            <Button variant="link" size="bare" onClick={startOver}>
              Start over
            </Button>
          </p>
        )}
        <DatasetSection
          datasetId={configuration.datasetId}
          onChoose={(datasetId) => change({ ...configuration, datasetId })}
        />
        <BaseModel catalogue={catalogue} configuration={configuration} onChange={change} />
        <Presets catalogue={catalogue} configuration={configuration} onChange={change} />
        <Hardware catalogue={catalogue} configuration={configuration} onChange={change} />
        <HyperparametersSection catalogue={catalogue} configuration={configuration} onChange={change} />
        {/* Below what it depends on: a slider that moved away from under the pointer would be no slider. */}
        {asked?.base_model && (
          <MemorySection
            memory={estimate?.memory ?? null}
            repairs={estimate?.repairs ?? []}
            allowsRisk={allowsRisk}
            onAllowRisk={(allowed) => setRiskAllowedFor(allowed ? askedKey : null)}
            onRepair={(repair) => change(withPatch(catalogue, configuration, repair.patch))}
          />
        )}
        <LimitsSection catalogue={catalogue} configuration={configuration} estimate={isCurrent ? estimate : undefined} onChange={change} />
        <Alternatives catalogue={catalogue} configuration={configuration} asked={asked} onChange={change} />
        <Button variant="ghost" className="lg:hidden" onClick={onCancel}>
          Cancel
        </Button>
      </div>
      <EstimateCard
        estimate={estimate}
        isForecast={Boolean(asked?.base_model)}
        isCurrent={isCurrent}
        isEstimating={isEstimating}
        error={error}
        onRetry={retry}
        change={moved}
        obstacle={
          asked
            ? null
            : configuration.datasetId === null
              ? "Choose a dataset to see what training on it costs."
              : "Correct the values marked in red to see the cost."
        }
        canStart={canStart}
        isStarting={create.isPending}
        warning={tooLarge}
        quote={
          asked && (
            <QuoteBadge
              asked={asked}
              quote={quote}
              disabled={!isCurrent || estimate?.forecast?.is_quote === false}
              onQuote={(made) => setQuoted({ asked: JSON.stringify(asked), quote: made })}
            />
          )
        }
        onStart={start}
        onCancel={onCancel}
      />
    </div>
  );
}

/**
 * The idempotency key of what is configured. It is read when the configuration settles and held from then on, so that a
 * second tab that started the same job a moment ago and this one mean the same.
 */
function useRequestId(fingerprint: string | null): [id: string | null, renew: () => void] {
  const [held, setHeld] = useState<{ fingerprint: string; id: string } | null>(null);
  if (fingerprint !== null && held?.fingerprint !== fingerprint) {
    setHeld({ fingerprint, id: requestIdOf(fingerprint) });
  }
  const renew = () => {
    if (fingerprint === null) return;
    dropRequestId(fingerprint);
    setHeld({ fingerprint, id: requestIdOf(fingerprint) });
  };
  return [fingerprint !== null && held?.fingerprint === fingerprint ? held.id : null, renew];
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
