import type { Job } from "@/api/types";

/** A command that starts a job with the same configuration. */
export function asCurl(job: Job, origin: string): string {
  const body = {
    dataset_id: job.dataset_id,
    gpu_config: job.gpu_config,
    hyperparameters: Object.fromEntries(Object.entries(job.hyperparameters).filter(([, value]) => value !== null)),
    preset_id: job.preset_id,
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
