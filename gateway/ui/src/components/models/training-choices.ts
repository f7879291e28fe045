import type { Choice } from "@/configure/model/configuration";

type TrainingChoice = { readonly choice: Choice; readonly label: string; readonly values: readonly (readonly [value: string, label: string])[] };

/** Training options with a fixed set of values, and what the page calls them. */
export const TRAINING_CHOICES: readonly TrainingChoice[] = [
  { choice: "method", label: "Method", values: [["lora", "LoRA"], ["qlora", "QLoRA (4-bit)"], ["full", "Full fine-tuning"]] },
  { choice: "precision", label: "Precision", values: [["bf16", "bf16"], ["fp16", "fp16"], ["fp8", "fp8"]] },
  { choice: "activation_checkpointing", label: "Activation checkpointing", values: [["true", "On"], ["false", "Off"]] },
  { choice: "packing", label: "Packing", values: [["true", "On"], ["false", "Off"]] },
  { choice: "stack", label: "Kernels", values: [["plain", "Eager"], ["tuned", "Fused"]] },
];
