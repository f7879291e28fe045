import type { Catalogue } from "@/api/types";

/** The size of a base model: `8.03 B parameters`, `46.7 B parameters, 12.9 B active`. */
export function modelFacts(model: Catalogue["base_models"][number]): string {
  const active = model.experts > 1 ? `, ${model.active_params_b} B active` : "";
  return `${model.params_b} B parameters${active}`;
}
