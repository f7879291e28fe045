import { useEffect, useEffectEvent, useState } from "react";

import type { Job, JobEvent } from "@/api/types";

type Update = { kind: "jobs"; jobs: Job[] } | { kind: "event"; event: JobEvent };

/**
 * Follows a watch of the API over server-sent events and says whether it is open now.
 *
 * The browser reconnects by itself and resumes after the last event it saw. A tab that nobody looks at lets go of its
 * connection, because a browser has only six for a server; when it is looked at again, a snapshot brings it up to date.
 */
export function useLive(path: string | null, onUpdate: (update: Update) => void): boolean {
  const [isOpen, setOpen] = useState(false);
  const take = useEffectEvent(onUpdate);
  const isVisible = useVisible();
  useEffect(() => {
    if (path === null || !isVisible || typeof EventSource === "undefined") return;
    const source = new EventSource(path);
    const jobs = ({ data }: MessageEvent<string>) => take({ kind: "jobs", jobs: (JSON.parse(data) as { jobs: Job[] }).jobs });
    source.onopen = () => setOpen(true);
    source.addEventListener("snapshot", jobs);
    source.addEventListener("reset", jobs);
    source.addEventListener("event", ({ data }: MessageEvent<string>) =>
      take({ kind: "event", event: JSON.parse(data) as JobEvent }),
    );
    source.addEventListener("end", ({ data }: MessageEvent<string>) => {
      // A job that is over has nothing more to tell; a session that is over is found out by the next call.
      if (["job_final", "auth"].includes((JSON.parse(data) as { reason: string }).reason)) {
        setOpen(false);
        source.close();
      }
    });
    // Gone for now, or for good where the server refused: until it is back, the page asks every few seconds.
    source.onerror = () => setOpen(false);
    return () => {
      setOpen(false);
      source.close();
    };
  }, [path, isVisible]);
  return isOpen;
}

function useVisible(): boolean {
  const [isVisible, setVisible] = useState(document.visibilityState === "visible");
  useEffect(() => {
    const look = () => setVisible(document.visibilityState === "visible");
    document.addEventListener("visibilitychange", look);
    return () => document.removeEventListener("visibilitychange", look);
  }, []);
  return isVisible;
}
