import type { ReactNode } from "react";

export function Panel({ title, aside, children }: { title: string; aside?: ReactNode; children: ReactNode }) {
  return (
    <section aria-label={title} className="panel p-4 sm:p-5">
      <div className="mb-3 flex min-h-6 items-center justify-between gap-4">
        <h2 className="font-semibold tracking-tight">{title}</h2>
        {aside}
      </div>
      {children}
    </section>
  );
}

export function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div className="min-w-0">
      <dt className="text-xs wrap-anywhere text-soft">{name}</dt>
      <dd className="figures mt-0.5 text-sm font-medium wrap-anywhere">{children}</dd>
    </div>
  );
}
