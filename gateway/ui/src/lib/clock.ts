/**
 * The server's clock, as far as responses show it. A browser's own clock may be wrong by hours, and "2 minutes ago" is
 * relative to times of the server.
 */
let offsetMs = 0;
/** Smaller differences are ignored: the `Date` header has whole seconds and arrives late. */
const TOLERANCE_MS = 5000;

/** Reads the server's time from the `Date` header of a response. */
export function observeServerTime(response: Response): void {
  const date = Date.parse(response.headers.get("Date") ?? "");
  if (Number.isNaN(date)) return;
  const difference = date - Date.now();
  offsetMs = Math.abs(difference) > TOLERANCE_MS ? difference : 0;
}

/** The current time by the server's clock, in milliseconds since 1970. */
export function serverNow(): number {
  return Date.now() + offsetMs;
}
