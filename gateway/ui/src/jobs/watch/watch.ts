import { WatchConnection, type WatchMessage } from "./connection";
import type { WorkerRequest } from "./worker";

/** The server pings every 2 s. A connection without a message for this long is not live. */
export const LIVE_TIMEOUT_MS = 4500;
const CHECK_MS = 500;

type Listener = (message: WatchMessage) => void;

/** The watch of the user's jobs in this window. It is connected while it has subscribers. */
class JobWatch {
  readonly #listeners = new Set<Listener>();
  readonly #observers = new Set<() => void>();
  #port: MessagePort | null = null;
  #connection: WatchConnection | null = null;
  #lastMessageAt = 0;
  #isLive = false;
  #check: ReturnType<typeof setInterval> | undefined;

  /** Subscribes to messages. Returns the function that unsubscribes. */
  subscribe(listener: Listener): () => void {
    this.#listeners.add(listener);
    if (this.#listeners.size === 1) {
      this.#send("subscribe");
      this.#check = setInterval(() => this.#update(), CHECK_MS);
    }
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size > 0) return;
      clearInterval(this.#check);
      this.#send("unsubscribe");
      this.#lastMessageAt = 0;
      this.#update();
    };
  }

  /** Calls `observer` when `isLive` changes. Returns the function that ends that. */
  observe = (observer: () => void): (() => void) => {
    this.#observers.add(observer);
    return () => this.#observers.delete(observer);
  };

  /** Whether a message arrived within the last `LIVE_TIMEOUT_MS`. */
  isLive = (): boolean => this.#isLive;

  /** Time of the last message by this browser's clock, in milliseconds; 0: none. */
  lastMessageAt = (): number => this.#lastMessageAt;

  /** Connects again, as another user after signing in. */
  reconnect(): void {
    if (this.#port ?? this.#connection) this.#send("reconnect");
  }

  #receive = (message: WatchMessage): void => {
    // After a gap, as after sleep, what was fetched before may be out of date.
    const resumed = !this.#isLive && message.kind !== "snapshot";
    this.#lastMessageAt = Date.now();
    this.#update();
    if (resumed) this.#listeners.forEach((listener) => listener({ kind: "snapshot", jobs: [] }));
    this.#listeners.forEach((listener) => listener(message));
  };

  #update(): void {
    const isLive = Date.now() - this.#lastMessageAt < LIVE_TIMEOUT_MS;
    if (isLive === this.#isLive) return;
    this.#isLive = isLive;
    this.#observers.forEach((observer) => observer());
  }

  #send(request: WorkerRequest): void {
    if (typeof SharedWorker !== "undefined") {
      if (this.#port === null) {
        const worker = new SharedWorker(new URL("./worker.ts", import.meta.url), { type: "module", name: "job-watch" });
        this.#port = worker.port;
        this.#port.onmessage = ({ data }: MessageEvent<WatchMessage>) => this.#receive(data);
      }
      this.#port.postMessage(request);
    } else if (typeof EventSource !== "undefined") {
      this.#connection ??= new WatchConnection(this.#receive);
      if (request !== "subscribe") this.#connection.close();
      if (request !== "unsubscribe" && this.#listeners.size > 0) this.#connection.open();
    }
  }
}

export const jobWatch = new JobWatch();
