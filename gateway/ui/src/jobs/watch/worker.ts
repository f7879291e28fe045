/// <reference lib="webworker" />
import { WatchConnection, type WatchMessage } from "./connection";

/** A message of a page to this worker. */
export type WorkerRequest = "subscribe" | "unsubscribe" | "reconnect";

/** One connection for all windows of the site: a browser opens at most six for a server over HTTP/1.1. */
const ports = new Set<MessagePort>();
const connection = new WatchConnection((message: WatchMessage) => ports.forEach((port) => port.postMessage(message)));

(self as unknown as SharedWorkerGlobalScope).onconnect = ({ ports: [port] }) => {
  if (!port) return;
  port.onmessage = ({ data }: MessageEvent<WorkerRequest>) => {
    if (data === "subscribe") {
      ports.add(port);
      connection.open();
    } else if (data === "unsubscribe") {
      ports.delete(port);
      if (ports.size === 0) connection.close();
    } else {
      connection.close();
      if (ports.size > 0) connection.open();
    }
  };
};
