import { ApiError } from "./errors";

export type UploadProgress = { sent: number; total: number };

/** Sends a file as the body. XMLHttpRequest, because `fetch` does not say how much has gone out. */
export function upload<T>(
  path: string,
  file: File,
  { signal, onProgress }: { signal: AbortSignal; onProgress: (progress: UploadProgress) => void },
): Promise<T> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const abort = () => request.abort();
    const fail = (error: Error) => {
      signal.removeEventListener("abort", abort);
      reject(error);
    };
    request.open("POST", path);
    request.setRequestHeader("Content-Type", "application/jsonl");
    request.setRequestHeader("Accept", "application/json");
    request.responseType = "json";
    request.upload.onprogress = ({ loaded, total }) => onProgress({ sent: loaded, total });
    request.upload.onload = () => onProgress({ sent: file.size, total: file.size });
    request.onload = () => {
      const body = request.response as { success?: true; data?: T } | null;
      if (request.status >= 200 && request.status < 300 && body?.data !== undefined) {
        signal.removeEventListener("abort", abort);
        resolve(body.data);
      } else fail(new ApiError(request.status, body as ConstructorParameters<typeof ApiError>[1]));
    };
    request.onerror = () => fail(new ApiError(0, null));
    request.onabort = () => fail(new DOMException("The upload was stopped", "AbortError"));
    signal.addEventListener("abort", abort, { once: true });
    request.send(file);
  });
}
