import { cn } from "@/lib/cn";

const TONES = {
  plain: "bg-sunken text-soft",
  good: "bg-good-soft text-good",
  warn: "bg-warn-soft text-warn",
  bad: "bg-bad-soft text-bad",
  live: "bg-live-soft text-live",
  brand: "bg-brand-soft text-brand",
} as const;
export type Tone = keyof typeof TONES;

type Props = { tone?: Tone; dot?: "still" | "pulsing"; className?: string; children: React.ReactNode };

export function Badge({ tone = "plain", dot, className, children }: Props) {
  return (
    <span
      className={cn(
        "inline-flex items-center gap-1.5 rounded-full px-2 py-0.5 text-xs font-medium whitespace-nowrap",
        TONES[tone],
        className,
      )}
    >
      {dot && (
        <span
          aria-hidden
          className={cn("size-1.5 rounded-full bg-current", dot === "pulsing" && "animate-pulse")}
        />
      )}
      {children}
    </span>
  );
}
