import { expect, it } from "vitest";

import type { CreateJobRequest, Job } from "@/api/types";
import { curlCode, pythonCode, requestOfJob } from "./api-code";

const request = {
  dataset_id: "d",
  base_model: "o'reilly \"7b\"",
  allow_oom_risk: true,
  training: { target_modules: ["q_proj"], packing: false },
} as unknown as CreateJobRequest;

it("has the job's priority, zero too", () => {
  const job = { hyperparameters: {}, labels: [], training: null, priority: 0, max_cost_usd: null } as unknown as Job;
  const sent = requestOfJob(job);
  expect(sent.priority).toBe(0);
  expect(sent).not.toHaveProperty("max_cost_usd");
});

it("keeps a single quote from the shell", () => {
  expect(curlCode(request, "http://h")).toContain(`"o'\\''reilly \\"7b\\""`);
});

it("is a Python literal", () => {
  expect(pythonCode(request, "http://h")).toContain(`json={
        "dataset_id": "d",
        "base_model": "o'reilly \\"7b\\"",
        "allow_oom_risk": True,
        "training": {
            "target_modules": [
                "q_proj",
            ],
            "packing": False,
        },
    },`);
});
