import { ChevronLeft, ChevronRight } from "lucide-react";
import { useState, type SyntheticEvent } from "react";

import type { Pagination } from "@/api/types";
import { count } from "@/lib/format";
import { Button } from "@/components/ui/button";
import { Input } from "@/components/ui/input";
import { Select } from "@/components/ui/select";

type Props = {
  pagination: Pagination;
  noun: string;
  onPage: (page: number) => void;
  /** Sizes that a page may have, where the person may choose. */
  sizes?: readonly number[];
  onSize?: (size: number) => void;
};

export function Pager({ pagination: { page, limit, total, totalPages }, noun, onPage, sizes, onSize }: Props) {
  if (total === 0) return null;
  const first = (page - 1) * limit + 1;
  const last = Math.min(total, page * limit);
  return (
    <nav aria-label="Pages" className="flex flex-wrap items-center justify-between gap-x-4 gap-y-2 px-1 pt-4 text-sm text-soft">
      <p className="figures">
        {first > total ? `Nothing on page ${page}` : `${count(first)}–${count(last)}`} of {count(total)} {noun}
      </p>
      {sizes && onSize && (
        <Select
          label="Rows per page"
          className="h-8 text-[0.8125rem]"
          value={String(limit)}
          onChange={(size) => onSize(Number(size))}
          options={sizes.map((size) => ({ value: String(size), label: `${size} per page` }))}
        />
      )}
      {totalPages > 1 && (
        <div className="flex items-center gap-2">
          <Button size="small" disabled={page <= 1} onClick={() => onPage(Math.min(page - 1, totalPages))}>
            <ChevronLeft aria-hidden />
            <span className="max-sm:sr-only">Previous page</span>
          </Button>
          <PageBox key={page} page={page} totalPages={totalPages} onPage={onPage} />
          <Button size="small" disabled={page >= totalPages} onClick={() => onPage(page + 1)}>
            <span className="max-sm:sr-only">Next page</span>
            <ChevronRight aria-hidden />
          </Button>
        </div>
      )}
    </nav>
  );
}

/** The number of the page. Enter goes to the one that was typed. */
function PageBox({ page, totalPages, onPage }: { page: number; totalPages: number; onPage: (page: number) => void }) {
  const [text, setText] = useState(String(page));
  const go = (event: SyntheticEvent) => {
    event.preventDefault();
    const target = Number.parseInt(text, 10);
    if (Number.isNaN(target)) setText(String(page));
    else {
      const clamped = Math.min(totalPages, Math.max(1, target));
      setText(String(clamped));
      onPage(clamped);
    }
  };
  return (
    <form onSubmit={go} className="figures flex items-center gap-1.5 whitespace-nowrap">
      <Input
        aria-label="Page"
        inputMode="numeric"
        autoComplete="off"
        className="h-8 w-16 px-2 text-center"
        value={text}
        onChange={({ target }) => setText(target.value)}
        onFocus={({ target }) => target.select()}
        onBlur={() => setText(String(page))}
      />
      / {count(totalPages)}
    </form>
  );
}
