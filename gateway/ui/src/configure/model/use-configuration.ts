import { useEffect, useState } from "react";
import { useNavigation, useSearchParams } from "react-router";

import type { Catalogue } from "@/api/types";
import {
  fromSearch,
  holdsConfiguration,
  startingConfiguration,
  toSearch,
  type Configuration,
} from "./configuration";
import { draftOf, dropDraft, keepDraft } from "./draft";

/** Long enough that a drag of a slider does not flood the history, short enough to be there at a reload. */
const ADDRESS_DELAY_MS = 150;

type Held = {
  configuration: Configuration;
  change: (changed: Configuration) => void;
  /** Whether the form was filled from a draft, and the way back to a fresh one. */
  isRestored: boolean;
  startOver: () => void;
};

/** What the form holds: from the address, else from the draft, else the catalogue's defaults; kept in both at every change. */
export function useConfiguration(catalogue: Catalogue): Held {
  const [search, setSearch] = useSearchParams();
  const [{ configuration, isRestored }, setHeld] = useState(() => initial(search, catalogue));

  const isLeaving = useNavigation().state !== "idle";
  useEffect(() => {
    // A new address would call off the way to another page.
    if (isLeaving) return;
    const timer = setTimeout(() => {
      setSearch(toSearch(configuration), { replace: true, preventScrollReset: true });
    }, ADDRESS_DELAY_MS);
    return () => clearTimeout(timer);
    // The address follows the form, never the other way round.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [configuration, isLeaving]);

  return {
    configuration,
    isRestored,
    change: (changed) => {
      if (changed.datasetId !== null) keepDraft(changed.datasetId, changed);
      setHeld({ configuration: changed, isRestored: false });
    },
    startOver: () => {
      if (configuration.datasetId !== null) dropDraft(configuration.datasetId);
      setHeld({ configuration: startingConfiguration(catalogue, configuration.datasetId), isRestored: false });
    },
  };
}

function initial(search: URLSearchParams, catalogue: Catalogue): { configuration: Configuration; isRestored: boolean } {
  const datasetId = search.get("datasetId") ?? null;
  const fresh = startingConfiguration(catalogue, datasetId);
  const draft = datasetId === null ? null : draftOf(datasetId);
  // A draft may hold what an address cannot: text that is no number.
  if (draft && toSearch(draft).toString() === search.toString()) return { configuration: draft, isRestored: false };
  if (holdsConfiguration(search)) return { configuration: fromSearch(search, catalogue, fresh), isRestored: false };
  if (draft) return { configuration: draft, isRestored: true };
  return { configuration: fresh, isRestored: false };
}
