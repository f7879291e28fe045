// How long a chunk is waited for while the server is away, and the pause between two looks, milliseconds.
const LONGEST_WAIT = 30_000;
const PAUSE = 500;

/**
 * Loads a chunk of the page. Where that fails it waits until the server answers, as after a restart, and loads it once more:
 * only a chunk that is gone, because a newer version was deployed, is an error.
 */
export async function chunk<T>(load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch {
    await serverAnswers();
    return load();
  }
}

async function serverAnswers(): Promise<void> {
  for (const end = Date.now() + LONGEST_WAIT; Date.now() < end; ) {
    const answers = await fetch("/healthz").then(({ ok }) => ok, () => false);
    if (answers) return;
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
}
