import type { ReactNode } from "react";

import { useTitle } from "@/hooks/title";

type Props = { title: string; before?: ReactNode; children?: ReactNode; actions?: ReactNode };

export function PageHeader({ title, before, children, actions }: Props) {
  useTitle(title);
  return (
    <div className="mb-6 flex flex-wrap items-end justify-between gap-x-6 gap-y-4">
      <div className="flex min-w-0 items-start gap-3">
        {before}
        <div className="min-w-0">
          <h1 className="truncate text-2xl font-semibold tracking-tight">{title}</h1>
          {children && <div className="mt-1 text-sm text-soft">{children}</div>}
        </div>
      </div>
      {actions && <div className="flex flex-wrap items-center gap-2">{actions}</div>}
    </div>
  );
}
