import { expect, test } from "vitest";

import type { Job, JobArtifact } from "@/api/types";
import { downloadPath, usageOf } from "./usage";

const ID = "1a2b3c4d-0000-4000-8000-000000000000";

function usage(rank: number, { method = "lora", source = "mistralai/Mistral-7B-v0.3", dataset = "Support (Ünïted) v2" } = {}) {
  const job = { id: ID, hyperparameters: { rank }, plan: { training: { method } }, dataset: { name: dataset } } as unknown as Job;
  const artifact = { base_model: "demo-tiny", base_model_source: source } as JobArtifact;
  return usageOf(job, artifact).map(({ code }) => code) as [string, string];
}

test("an adapter is loaded onto its base model and served beside it", () => {
  const [python, vllm] = usage(24);
  expect(python).toContain("# unzip 1a2b3c4d-adapter.zip -d adapter");
  expect(python).toContain('AutoModelForCausalLM.from_pretrained("mistralai/Mistral-7B-v0.3"');
  expect(python).toContain('PeftModel.from_pretrained(base, "adapter")');
  expect(vllm).toContain("vllm serve mistralai/Mistral-7B-v0.3");
  expect(vllm).toContain("--max-lora-rank 32");
  expect(vllm).toContain("--lora-modules support-united-v2=./adapter");
});

test("vLLM is given the smallest rank that it takes and that is enough", () => {
  expect(usage(8)[1]).toContain("--max-lora-rank 8 ");
  expect(usage(9)[1]).toContain("--max-lora-rank 16 ");
  expect(usage(257)[1]).toContain("--max-lora-rank 320 ");
});

test("a fully trained model is served by itself", () => {
  const [python, vllm] = usage(16, { method: "full" });
  expect(python).toContain('model = AutoModelForCausalLM.from_pretrained("model"');
  expect(python).not.toContain("peft");
  expect(vllm).toContain("vllm serve ./model");
  expect(vllm).not.toContain("lora");
});

test("a base model without a repository is in the trainer's folder, and no name breaks the command", () => {
  const [python, vllm] = usage(8, { source: "pipeline trainer --demo-model", dataset: "質問 '; rm" });
  expect(python).toContain('from_pretrained("./models/demo-tiny"');
  expect(vllm).toContain("--lora-modules rm=./adapter");
  expect(usage(8, { dataset: "質問" })[1]).toContain("--lora-modules adapter=./adapter");
});

test("a file's name is one segment of its path", () => {
  expect(downloadPath(ID, "a b/c.json")).toBe(`/api/jobs/${ID}/artifact/a%20b%2Fc.json`);
});
