import { cn } from "@/lib/cn";

type Props = { label: string; /** 0 to 100; null: no telling. */ percent: number | null; className?: string };

export function Progress({ label, percent, className }: Props) {
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
          "h-full rounded-full bg-brand transition-[width] duration-500",
          percent === null && "w-2/5 animate-[indeterminate_1.4s_ease-in-out_infinite]",
        )}
        style={percent === null ? undefined : { width: `${Math.min(100, Math.max(0, percent))}%` }}
      />
    </div>
  );
}
