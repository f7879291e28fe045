import type { CreateJobRequest, Job } from "@/api/types";

/** Fields of a request that belong to one call and not to the job. */
type OfCall = "request_id" | "estimated_cost" | "quote_id";
/** Every other field, so that a new one cannot be forgotten here. Null: not sent. */
type JobFields = Record<Exclude<keyof CreateJobRequest, OfCall>, unknown>;

/** The request that creates a job with the same configuration and limits. */
export function requestOfJob(job: Job): CreateJobRequest {
  const fields: JobFields = {
    dataset_id: job.dataset_id,
    gpu_config: job.gpu_config,
    hyperparameters: withoutNulls(job.hyperparameters),
    preset_id: job.preset_id,
    base_model: job.base_model,
    training: job.training && withoutNulls(job.training),
    provider: job.provider,
    max_cost_usd: job.max_cost_usd,
    max_duration_seconds: job.max_duration_seconds,
    priority: job.priority,
    allow_oom_risk: job.allow_oom_risk || null,
    name: job.name,
    labels: job.labels.length > 0 ? job.labels : null,
  };
  return withoutNulls(fields) as CreateJobRequest;
}

function withoutNulls<T extends object>(fields: T): T {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null)) as T;
}

/** A curl command that creates a job. The shell variable `PIPELINE_API_KEY` has the API key. */
export function curlCode(request: CreateJobRequest, origin: string): string {
  // In single quotes a shell leaves every character as it is, except the single quote.
  const body = JSON.stringify(request, null, 2).replaceAll("'", `'\\''`);
  return [
    `curl -X POST ${origin}/api/jobs`,
    `  -H "Authorization: Bearer $PIPELINE_API_KEY"`,
    `  -H "Content-Type: application/json"`,
    `  -d '${body}'`,
  ].join(" \\\n");
}

/** A Python program that creates a job. The environment variable `PIPELINE_API_KEY` has the API key. */
export function pythonCode(request: CreateJobRequest, origin: string): string {
  return `import os

import httpx

response = httpx.post(
    "${origin}/api/jobs",
    headers={"Authorization": f"Bearer {os.environ['PIPELINE_API_KEY']}"},
    json=${pythonLiteral(request, "    ")},
)
response.raise_for_status()
print(response.json()["data"]["id"])
`;
}

/** JSON as a Python literal, indented by `indent`. */
function pythonLiteral(value: unknown, indent: string): string {
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null || value === undefined) return "None";
  // JSON's strings are Python's, except that Python reads no surrogate pairs: those are written as they are.
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = `${indent}    `;
  const items = Array.isArray(value)
    ? value.map((item) => pythonLiteral(item, inner))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${pythonLiteral(item, inner)}`);
  const [open, close] = Array.isArray(value) ? ["[", "]"] : ["{", "}"];
  return items.length === 0 ? open + close : `${open}\n${items.map((item) => `${inner}${item},\n`).join("")}${indent}${close}`;
}
