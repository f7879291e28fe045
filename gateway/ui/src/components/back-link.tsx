import { ArrowLeft } from "lucide-react";
import type { MouseEvent } from "react";
import { Link, useLocation, useNavigate } from "react-router";

import { Button } from "@/components/ui/button";

/** State of a link from the list at `path` to one of its entries: the entry's way back is the list as it was left. */
export function openedFrom(path: string): { openedFrom: string } {
  return { openedFrom: path };
}

type Props = { to: string; label: string };

/** Leads from a page to its list. Where the list opened the page it goes back to it, with its filters, place and selection. */
export function BackLink({ to, label }: Props) {
  const navigate = useNavigate();
  const state = useLocation().state as { openedFrom?: string } | null;
  const onClick = (event: MouseEvent) => {
    // Not where the browser would open a new tab.
    if (state?.openedFrom !== to || event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    void navigate(-1);
  };
  return (
    <Button asChild variant="ghost" size="icon" className="-ml-2 shrink-0">
      <Link to={to} aria-label={label} onClick={onClick}>
        <ArrowLeft aria-hidden />
      </Link>
    </Button>
  );
}
