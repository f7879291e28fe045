import { ArrowLeft } from "lucide-react";
import type { MouseEvent } from "react";
import { Link, useLocation, useNavigate } from "react-router";

import { Button } from "@/components/ui/button";

/** State for links from the list at `path` to an entry, so that the entry's BackLink restores the list. */
export function openedFrom(path: string): { openedFrom: string } {
  return { openedFrom: path };
}

type Props = { to: string; label: string };

/** A link from a page to its list. If the list opened the page, it goes back in the history, to its filters, position and selection. */
export function BackLink({ to, label }: Props) {
  const navigate = useNavigate();
  const state = useLocation().state as { openedFrom?: string } | null;
  const onClick = (event: MouseEvent) => {
    // Clicks that open a new tab are left to the browser.
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
