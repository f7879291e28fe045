import type { Job, JobArtifact } from "@/api/types";
import type { Code } from "@/components/code-tabs";

/** The name under which a job's files are downloaded as one. */
export const ARCHIVE = "adapter.zip";
/** Values that vLLM takes for `--max-lora-rank`. */
const VLLM_RANKS = [8, 16, 32, 64, 128, 256, 320, 512];

/** The download URL of a file of a job's result. The browser sends the session cookie with it. */
export function downloadPath(jobId: string, name: string): string {
  return `/api/jobs/${jobId}/artifact/${encodeURIComponent(name)}`;
}

/** How to use a result in Python and to serve it, after its files were downloaded as one. */
export function usageOf(job: Job, artifact: JobArtifact): readonly Code[] {
  // The server names the archive after the job.
  const unzip = (folder: string) => `unzip ${job.id.slice(0, 8)}-${ARCHIVE} -d ${folder}`;
  if (job.plan?.training.method === "full") {
    return [
      { name: "Python", code: pythonCode({ unzip: unzip("model"), packages: "", imports: "", load: `model = ${loaded("model")}`, folder: "model" }) },
      { name: "vLLM", code: `# pip install vllm\n${unzip("model")}\n\nvllm serve ./model` },
    ];
  }
  const source = sourceOf(artifact);
  const python = pythonCode({
    unzip: unzip("adapter"),
    packages: " peft",
    imports: "from peft import PeftModel\n",
    load: `base = ${loaded(source)}\nmodel = PeftModel.from_pretrained(base, "adapter")`,
    folder: "adapter",
  });
  const name = nameOf(job.dataset.name);
  const rank = VLLM_RANKS.find((one) => one >= job.hyperparameters.rank) ?? job.hyperparameters.rank;
  const vllm = `# pip install vllm
${unzip("adapter")}

vllm serve ${source} \\
  --enable-lora --max-lora-rank ${rank} \\
  --lora-modules ${name}=./adapter

curl http://localhost:8000/v1/chat/completions \\
  -H "Content-Type: application/json" \\
  -d '{"model": "${name}", "messages": [{"role": "user", "content": "Hello"}]}'`;
  return [
    { name: "Python (PEFT)", code: python },
    { name: "vLLM", code: vllm },
  ];
}

/** The repository of the base model, or the trainer's folder if it is in none. */
function sourceOf({ base_model, base_model_source }: JobArtifact): string {
  return /^[\w.-]+\/[\w.-]+$/.test(base_model_source) ? base_model_source : `./models/${base_model}`;
}

function loaded(source: string): string {
  return `AutoModelForCausalLM.from_pretrained("${source}", dtype="auto", device_map="auto")`;
}

type PythonParts = { unzip: string; packages: string; imports: string; load: string; folder: string };

function pythonCode({ unzip, packages, imports, load, folder }: PythonParts): string {
  return `# pip install torch transformers accelerate${packages}
# ${unzip}
${imports}from transformers import AutoModelForCausalLM, AutoTokenizer

${load}
tokenizer = AutoTokenizer.from_pretrained("${folder}")

messages = [{"role": "user", "content": "Hello"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt").to(model.device)
output = model.generate(**inputs, max_new_tokens=200)
print(tokenizer.decode(output[0][inputs["input_ids"].shape[1]:], skip_special_tokens=True))`;
}

/** A dataset's name as the name of a served model: letters, digits and hyphens. */
function nameOf(dataset: string): string {
  const words = dataset.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase().match(/[a-z0-9]+/g) ?? [];
  return words.join("-").slice(0, 40).replace(/-$/, "") || "adapter";
}
