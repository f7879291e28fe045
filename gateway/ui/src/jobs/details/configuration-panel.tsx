import { Link } from "react-router";

import type { Job } from "@/api/types";
import { useDataset } from "@/datasets/queries";
import { capitalise, count, moment, percent, scientific } from "@/lib/format";
import { Fact, Panel } from "./panel";

/** The configuration of a job, its dataset and its times. */
export function ConfigurationPanel({ job }: { job: Job }) {
  const { learning_rate, batch_size, epochs, rank, alpha, dropout } = job.hyperparameters;
  const times = [
    ["Queued", job.queued_at],
    ["Started", job.started_at],
    ["Ended", job.completed_at],
    ["Last change", job.updated_at],
  ] as const;
  return (
    <Panel title="Configuration" aside={<span className="text-[0.8125rem] text-soft">Cannot be changed</span>}>
      <dl className="grid grid-cols-2 gap-4 sm:grid-cols-4">
        <Fact name="Base model">{job.base_model ?? (job.plan ? `${job.plan.base_model} (default)` : "none")}</Fact>
        {trainingOptions(job).map(([name, value]) => (
          <Fact key={name} name={name}>
            {value}
          </Fact>
        ))}
        {job.provider && <Fact name="Provider">{job.provider}</Fact>}
        <Fact name="Preset">{capitalise(job.preset_id)}</Fact>
        <Fact name="GPUs">{`${job.gpu_config.count} × ${job.gpu_config.type}`}</Fact>
        <Fact name="Learning rate">{scientific(learning_rate)}</Fact>
        <Fact name="Batch size">{batch_size}</Fact>
        <Fact name="Epochs">{epochs}</Fact>
        <Fact name="LoRA rank">{rank}</Fact>
        <Fact name="LoRA alpha">{alpha ?? "default"}</Fact>
        <Fact name="Dropout">{dropout ?? "default"}</Fact>
      </dl>
      <h3 className="mt-5 mb-3 border-t border-line pt-4 text-sm font-semibold">Dataset</h3>
      <dl className="grid grid-cols-2 gap-4 sm:grid-cols-4">
        <Fact name="Name">
          {job.dataset_deleted ? (
            `${job.dataset.name} (deleted)`
          ) : (
            <Link className="text-brand underline-offset-4 hover:underline" to={`/datasets/${job.dataset_id}`}>
              {job.dataset.name}
            </Link>
          )}
        </Fact>
        <Fact name="Format">{job.dataset.format?.replace("_", " / ") ?? "–"}</Fact>
        <Fact name="Training pairs">
          {job.dataset.total_training_pairs == null ? "–" : count(job.dataset.total_training_pairs)}
        </Fact>
        {job.base_model && (
          <Fact name="Validation">
            <ValidatedWith job={job} />
          </Fact>
        )}
      </dl>
      <h3 className="mt-5 mb-3 border-t border-line pt-4 text-sm font-semibold">Times</h3>
      <dl className="grid grid-cols-2 gap-4 sm:grid-cols-4">
        {times.map(([name, at]) => (
          <Fact key={name} name={name}>
            {at ? <time dateTime={at}>{moment(at)}</time> : "–"}
          </Fact>
        ))}
        {job.external_job_id && <Fact name="Trainer’s job id">{job.external_job_id}</Fact>}
        {job.artifact_id && <Fact name="Artifact">{job.artifact_id}</Fact>}
      </dl>
    </Panel>
  );
}

function ValidatedWith({ job: { training } }: { job: Job }) {
  const id = training?.validation_dataset_id ?? null;
  const dataset = useDataset(id);
  if (id === null) return training?.validation_fraction ? `${percent(training.validation_fraction)} of the dataset` : "none";
  if (dataset.isError) return "a dataset that was deleted";
  return (
    <Link className="text-brand underline-offset-4 hover:underline" to={`/datasets/${id}`}>
      {dataset.data?.name ?? "…"}
    </Link>
  );
}

/** Training options that the job was created with, but for validation. The Estimator filled in the others. */
function trainingOptions(job: Job): [name: string, value: string][] {
  return Object.entries(job.training ?? {}).flatMap(([name, value]): [string, string][] => {
    if (name === "validation_dataset_id" || name === "validation_fraction") return [];
    if (value === null || (Array.isArray(value) && value.length === 0)) return [];
    const text = Array.isArray(value) ? value.join(" ") : value === true ? "on" : value === false ? "off" : String(value);
    return [[capitalise(name.replaceAll("_", " ")), text]];
  });
}
