import type { Catalogue } from "@/api/types";

/** Size, context and licence of a base model: `8.03 B parameters · 128k context · Llama 3.1`. */
export function modelFacts(model: Catalogue["base_models"][number]): string {
  const active = model.experts > 1 ? `, ${model.active_params_b} B active` : "";
  const context = model.context_tokens > 0 ? `${model.context_tokens / 1024}k context` : "";
  return [`${model.params_b} B parameters${active}`, context, model.license].filter(Boolean).join(" · ");
}
