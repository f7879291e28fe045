import { Database, KeyRound, LogOut, Rocket, User, Webhook, WifiOff } from "lucide-react";
import { DropdownMenu } from "radix-ui";
import { Link, NavLink, Outlet, ScrollRestoration, useNavigate } from "react-router";

import { useOnline } from "@/hooks/online";
import { useSession, useSignOut } from "./session";
import { cn } from "@/lib/cn";
import { NotificationsMenu } from "./notifications-menu";
import { Brand } from "./brand";
import { ThemeMenu, menuContent, menuItem } from "./theme-menu";
import { Button } from "@/components/ui/button";

const NAVIGATION = [
  { to: "/datasets", label: "Datasets", icon: Database },
  { to: "/training/jobs", label: "Jobs", icon: Rocket },
] as const;

export function Shell() {
  return (
    <>
      <a
        href="#content"
        onClick={(event) => {
          // The URL stays unchanged: it holds the page's state.
          event.preventDefault();
          document.getElementById("content")?.focus();
        }}
        className="fixed top-2 left-2 z-50 -translate-y-16 rounded-lg bg-brand px-4 py-2 text-sm font-medium text-brand-ink focus:translate-y-0"
      >
        Skip to the content
      </a>
      <header className="sticky top-0 z-30 border-b border-line bg-ground/90 backdrop-blur-md">
        <div className="mx-auto flex h-14 max-w-6xl items-center gap-1 px-4 sm:gap-3 sm:px-6">
          <Link to="/datasets" className="mr-1 rounded-md sm:mr-4" aria-label="Pipeline: home">
            <Brand />
          </Link>
          <nav aria-label="Main" className="flex items-center gap-1">
            {NAVIGATION.map(({ to, label, icon: Icon }) => (
              <NavLink
                key={to}
                to={to}
                className={({ isActive }) =>
                  cn(
                    "flex h-9 items-center gap-2 rounded-lg px-2.5 text-sm font-medium transition-colors sm:px-3",
                    isActive ? "bg-brand-soft text-brand" : "text-soft hover:bg-sunken hover:text-ink",
                  )
                }
              >
                <Icon className="size-4 max-sm:hidden" aria-hidden />
                {label}
              </NavLink>
            ))}
          </nav>
          <div className="ml-auto flex items-center">
            <NotificationsMenu />
            <ThemeMenu />
            <Account />
          </div>
        </div>
      </header>
      <OfflineBar />
      <main id="content" tabIndex={-1} className="mx-auto max-w-6xl px-4 py-6 outline-none sm:px-6 sm:py-8">
        <Outlet />
      </main>
      <ScrollRestoration />
    </>
  );
}

function OfflineBar() {
  const online = useOnline();
  if (online) return null;
  return (
    <p role="status" className="flex items-center justify-center gap-2 bg-warn-soft px-4 py-2 text-sm text-warn">
      <WifiOff className="size-4 shrink-0" aria-hidden />
      You are offline. The data shown may be out of date. Your input is kept.
    </p>
  );
}

function Account() {
  const session = useSession();
  const signOut = useSignOut();
  const navigate = useNavigate();
  return (
    <DropdownMenu.Root>
      <DropdownMenu.Trigger asChild>
        <Button variant="ghost" size="icon" aria-label="Account">
          <User aria-hidden />
        </Button>
      </DropdownMenu.Trigger>
      <DropdownMenu.Portal>
        <DropdownMenu.Content align="end" sideOffset={6} className={cn(menuContent, "min-w-64")}>
          <DropdownMenu.Label className="px-2.5 pt-1.5 pb-2 text-xs text-soft">
            Signed in as
            <span className="block truncate pt-0.5 font-mono text-ink">{session.data?.user_id ?? "…"}</span>
          </DropdownMenu.Label>
          <DropdownMenu.Separator className="my-1 h-px bg-line" />
          <DropdownMenu.Item className={menuItem} onSelect={() => void navigate("/keys")}>
            <KeyRound className="size-4 text-soft" aria-hidden />
            API keys
          </DropdownMenu.Item>
          <DropdownMenu.Item className={menuItem} onSelect={() => void navigate("/webhooks")}>
            <Webhook className="size-4 text-soft" aria-hidden />
            Webhooks
          </DropdownMenu.Item>
          <DropdownMenu.Item
            className={menuItem}
            onSelect={() => signOut.mutate(undefined, { onSuccess: () => void navigate("/login") })}
          >
            <LogOut className="size-4 text-soft" aria-hidden />
            Sign out
          </DropdownMenu.Item>
        </DropdownMenu.Content>
      </DropdownMenu.Portal>
    </DropdownMenu.Root>
  );
}
