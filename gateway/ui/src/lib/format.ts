const dollars = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD" });
const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
const dateTime = new Intl.DateTimeFormat("en-US", {
  year: "numeric",
  month: "short",
  day: "numeric",
  hour: "numeric",
  minute: "2-digit",
  timeZoneName: "short",
});
const clockTime = new Intl.DateTimeFormat("en-US", { timeStyle: "medium" });
const dateOnly = new Intl.DateTimeFormat("en-US", { dateStyle: "medium", timeZone: "UTC" });
const monthOnly = new Intl.DateTimeFormat("en-US", { month: "short", year: "numeric", timeZone: "UTC" });
const relative = new Intl.RelativeTimeFormat("en-US", { numeric: "auto", style: "long" });

export const money = (value: number): string => dollars.format(value);
export const count = (value: number): string => whole.format(value);
export const short = (value: number): string => compact.format(value);
/** Formats a date and time with its zone: `Nov 27, 2026, 9:05 AM UTC`. */
export const moment = (time: string | number): string => dateTime.format(new Date(time));
/** Formats the time of day with seconds: `9:05:12 AM`. */
export const timeOfDay = (time: number): string => clockTime.format(new Date(time));
/** Formats a calendar day, independent of the time zone: `2026-08-21` is Aug 21, 2026. */
export const day = (iso: string): string => dateOnly.format(new Date(iso));
export const month = (iso: string): string => monthOnly.format(new Date(iso));
export const percent = (share: number): string => `${Math.round(share * 100)} %`;

/** Formats a difference of two prices: `+$3.10`, `−$0.40`. */
export function moneyChange(value: number): string {
  return `${value < 0 ? "−" : "+"}${dollars.format(Math.abs(value))}`;
}

/** Formats hours as a duration: `45 min`, `2 h 05 min`. */
export function duration(hours: number): string {
  const minutes = Math.round(hours * 60);
  if (minutes < 1) return "under a minute";
  if (minutes < 60) return `${minutes} min`;
  const rest = minutes % 60;
  const whole = count(Math.floor(minutes / 60));
  return rest === 0 ? `${whole} h` : `${whole} h ${String(rest).padStart(2, "0")} min`;
}

/** Formats a duration that is only estimated: `about 45 min`, `under a minute`. */
export function aboutDuration(hours: number): string {
  const text = duration(hours);
  return text === duration(0) ? text : `about ${text}`;
}

export function bytes(value: number): string {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let index = 0;
  while (value >= 1000 && index < units.length - 1) {
    value /= 1000;
    index += 1;
  }
  return `${index === 0 ? value : value.toFixed(1)} ${units[index] ?? ""}`;
}

/** Formats a learning rate in scientific notation: `5e-5`, `1.2e-4`. */
export function scientific(value: number): string {
  return value === 0 ? "0" : value.toExponential(3).replace(/\.?0+e/, "e").replace("e+", "e");
}

/** Formats a time relative to now: `2 minutes ago`, `yesterday`, `in 5 minutes`. */
export function ago(iso: string, now: number): string {
  const seconds = (new Date(iso).getTime() - now) / 1000;
  const steps: readonly [Intl.RelativeTimeFormatUnit, number][] = [
    ["year", 31_536_000],
    ["month", 2_592_000],
    ["day", 86_400],
    ["hour", 3600],
    ["minute", 60],
  ];
  for (const [unit, size] of steps) {
    if (Math.abs(seconds) >= size) return relative.format(Math.trunc(seconds / size), unit);
  }
  return Math.abs(seconds) < 10 ? "just now" : relative.format(Math.trunc(seconds), "second");
}

export function capitalise(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
