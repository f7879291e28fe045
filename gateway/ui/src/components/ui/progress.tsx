import { cn } from "@/lib/cn";

const TONES = { brand: "bg-brand", bad: "bg-bad", plain: "bg-line-strong" } as const;

type Props = { label: string; /** 0 to 100; null: unknown. */ percent: number | null; className?: string; tone?: keyof typeof TONES };

export function Progress({ label, percent, className, tone = "brand" }: Props) {
  const value = percent === null ? {} : { "aria-valuenow": Math.round(percent) };
  return (
    <div
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      {...value}
      className={cn("h-1.5 overflow-hidden rounded-full bg-sunken inset-ring inset-ring-line", className)}
    >
      <div
        className={cn(
          "h-full rounded-full transition-[width] duration-500",
          TONES[tone],
          percent === null && "w-2/5 animate-[indeterminate_1.4s_ease-in-out_infinite]",
        )}
        style={percent === null ? undefined : { width: `${Math.min(100, Math.max(0, percent))}%` }}
      />
    </div>
  );
}
