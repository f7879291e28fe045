const MAX_WAIT_MS = 30_000;
const POLL_MS = 500;

/**
 * Loads a chunk of the page. If that fails, waits until the server responds, as after a restart, and tries once more: only a
 * chunk that a newer version has replaced is an error.
 */
export async function chunk<T>(load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch {
    await serverResponds();
    return load();
  }
}

async function serverResponds(): Promise<void> {
  for (const end = Date.now() + MAX_WAIT_MS; Date.now() < end; ) {
    const isUp = await fetch("/healthz").then(({ ok }) => ok, () => false);
    if (isUp) return;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
