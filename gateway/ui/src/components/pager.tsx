import { ChevronLeft, ChevronRight } from "lucide-react";

import type { Pagination } from "@/api/types";
import { count } from "@/lib/format";
import { Button } from "@/components/ui/button";

type Props = { pagination: Pagination; noun: string; onPage: (page: number) => void };

export function Pager({ pagination: { page, limit, total, totalPages }, noun, onPage }: Props) {
  if (total === 0) return null;
  const first = (page - 1) * limit + 1;
  const last = Math.min(total, page * limit);
  return (
    <nav aria-label="Pages" className="flex items-center justify-between gap-4 px-1 pt-4 text-sm text-soft">
      <p className="figures">
        {first > total ? `Nothing on page ${page}` : `${count(first)}–${count(last)}`} of {count(total)} {noun}
      </p>
      {totalPages > 1 && (
        <div className="flex items-center gap-2">
          <Button size="small" disabled={page <= 1} onClick={() => onPage(Math.min(page - 1, totalPages))}>
            <ChevronLeft aria-hidden />
            <span className="max-sm:sr-only">Previous page</span>
          </Button>
          <span className="figures px-1">
            {page} / {totalPages}
          </span>
          <Button size="small" disabled={page >= totalPages} onClick={() => onPage(page + 1)}>
            <span className="max-sm:sr-only">Next page</span>
            <ChevronRight aria-hidden />
          </Button>
        </div>
      )}
    </nav>
  );
}
