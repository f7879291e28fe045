import type { Job } from "@/api/types";

/** A command that starts a job with the same configuration and the same limits. */
export function asCurl(job: Job, origin: string): string {
  const body = {
    dataset_id: job.dataset_id,
    gpu_config: job.gpu_config,
    hyperparameters: given(job.hyperparameters),
    preset_id: job.preset_id,
    ...given({
      base_model: job.base_model,
      training: job.training && given(job.training),
      provider: job.provider,
      max_cost_usd: job.max_cost_usd,
      max_duration_seconds: job.max_duration_seconds,
      allow_oom_risk: job.allow_oom_risk || null,
    }),
  };
  // Single quotes keep everything from the shell but a single quote.
  const quoted = JSON.stringify(body).replaceAll("'", `'\\''`);
  return [
    `curl -X POST ${origin}/api/jobs`,
    `  -H "Authorization: Bearer $TOKEN"`,
    `  -H "Content-Type: application/json"`,
    `  -d '${quoted}'`,
  ].join(" \\\n");
}

/** What is not left out. */
function given(fields: object): object {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null));
}
