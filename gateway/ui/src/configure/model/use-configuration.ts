import { useEffect, useState } from "react";
import { useNavigation, useSearchParams } from "react-router";

import type { Catalogue } from "@/api/types";
import { router } from "@/router";
import { fromSearch, hasConfiguration, toSearch } from "./address";
import { startingConfiguration, type Configuration } from "./configuration";
import { deleteDraft, getDraft, lastBaseModel, saveDraft } from "./draft";

/** Long enough that dragging a slider does not flood the history, short enough that a reload has the value. */
const ADDRESS_DELAY_MS = 150;

type Form = {
  configuration: Configuration;
  change: (changed: Configuration) => void;
  /** Whether the form was filled from a draft. */
  isRestored: boolean;
  /** Deletes the draft and resets the form to the defaults. */
  startOver: () => void;
};

/** The state of the form: from the URL, else from the draft, else the catalogue's defaults. Changes are saved in URL and draft. */
export function useConfiguration(catalogue: Catalogue): Form {
  const [search, setSearch] = useSearchParams();
  const [{ configuration, isRestored }, setForm] = useState(() => initial(search, catalogue));

  const isLeaving = useNavigation().state !== "idle";
  useEffect(() => {
    // A new URL would cancel a navigation to another page.
    if (isLeaving) return;
    const timer = setTimeout(() => {
      // The router knows of a navigation before this component is rendered again.
      if (router.state.navigation.state !== "idle") return;
      setSearch(toSearch(configuration), { replace: true, preventScrollReset: true });
    }, ADDRESS_DELAY_MS);
    return () => clearTimeout(timer);
    // The URL follows the form, never the other way round.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [configuration, isLeaving]);

  return {
    configuration,
    isRestored,
    change: (changed) => {
      if (changed.datasetId !== null) saveDraft(changed.datasetId, changed);
      setForm({ configuration: changed, isRestored: false });
    },
    startOver: () => {
      if (configuration.datasetId !== null) deleteDraft(configuration.datasetId);
      setForm({ configuration: startingConfiguration(catalogue, configuration.datasetId), isRestored: false });
    },
  };
}

function initial(search: URLSearchParams, catalogue: Catalogue): { configuration: Configuration; isRestored: boolean } {
  const datasetId = search.get("datasetId") ?? null;
  const model = catalogue.base_models.find(({ id }) => id === lastBaseModel());
  const defaults = { ...startingConfiguration(catalogue, datasetId), baseModel: model?.id ?? null };
  const draft = datasetId === null ? null : getDraft(datasetId);
  // A draft has what a URL cannot have: text that is not a number.
  if (draft && toSearch(draft).toString() === search.toString()) return { configuration: draft, isRestored: false };
  if (hasConfiguration(search)) return { configuration: fromSearch(search, catalogue, defaults), isRestored: false };
  if (draft) return { configuration: draft, isRestored: true };
  return { configuration: defaults, isRestored: false };
}
