import type { ReactNode } from "react";

type Props = { id: string; title: string; aside?: ReactNode; children: ReactNode };

export function Section({ id, title, aside, children }: Props) {
  return (
    <section aria-labelledby={id} className="panel p-4 sm:p-5">
      <div className="mb-3.5 flex min-h-7 flex-wrap items-center justify-between gap-x-4 gap-y-1">
        <h2 id={id} className="font-semibold tracking-tight">
          {title}
        </h2>
        {aside}
      </div>
      {children}
    </section>
  );
}
