import type { Job, JobEvent } from "@/api/types";

/** A message of the watch of all jobs of the signed-in user (`GET /api/jobs/events`). */
export type WatchMessage =
  /** The connection is open and live: anything fetched before may be out of date. */
  | { kind: "snapshot"; jobs: Job[] }
  | { kind: "event"; event: JobEvent }
  /** The connection is alive. */
  | { kind: "ping" };

const PATH = "/api/jobs/events";
/** A browser reconnects by itself after a lost connection, not after a refused one. */
const RETRY_MS = 5000;

/** One connection for server-sent events. It reconnects by itself and resumes after the last event it received. */
export class WatchConnection {
  readonly #onMessage: (message: WatchMessage) => void;
  #source: EventSource | null = null;
  #retry: ReturnType<typeof setTimeout> | undefined;

  constructor(onMessage: (message: WatchMessage) => void) {
    this.#onMessage = onMessage;
  }

  open(): void {
    if (this.#source !== null) return;
    const source = new EventSource(PATH);
    this.#source = source;
    for (const name of ["snapshot", "reset"]) {
      source.addEventListener(name, (message: MessageEvent<string>) =>
        this.#onMessage({ kind: "snapshot", jobs: (JSON.parse(message.data) as { jobs: Job[] }).jobs }),
      );
    }
    source.addEventListener("event", (message: MessageEvent<string>) =>
      this.#onMessage({ kind: "event", event: JSON.parse(message.data) as JobEvent }),
    );
    source.addEventListener("ping", () => this.#onMessage({ kind: "ping" }));
    source.addEventListener("end", (message: MessageEvent<string>) => {
      // The session has ended: the next request of the page leads to the sign-in page.
      if ((JSON.parse(message.data) as { reason: string }).reason === "auth") source.close();
    });
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED) return;
      this.close();
      this.#retry = setTimeout(() => this.open(), RETRY_MS);
    };
  }

  close(): void {
    clearTimeout(this.#retry);
    this.#source?.close();
    this.#source = null;
  }
}
