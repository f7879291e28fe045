import { Bell as BellIcon, BellOff, CheckCheck } from "lucide-react";
import { Popover } from "radix-ui";
import { useState } from "react";
import { Link, useNavigate } from "react-router";

import type { Notification } from "@/api/types";
import { useMarkRead, useNotifications } from "./notifications";
import { cn } from "@/lib/cn";
import { Failed } from "@/components/states";
import { TimeAgo } from "@/components/time-ago";
import { Button } from "@/components/ui/button";
import { Skeleton } from "@/components/ui/skeleton";

export function NotificationsMenu() {
  const [open, setOpen] = useState(false);
  const [unreadOnly, setUnreadOnly] = useState(false);
  const latest = useNotifications(false);
  const unread = latest.data?.unread_count ?? 0;
  return (
    <Popover.Root open={open} onOpenChange={setOpen}>
      <Popover.Trigger asChild>
        <Button
          variant="ghost"
          size="icon"
          className="relative"
          aria-label={unread > 0 ? `Notifications, ${unread} unread` : "Notifications"}
        >
          <BellIcon aria-hidden />
          {unread > 0 && (
            <span
              aria-hidden
              className="figures absolute top-1 right-0.5 grid h-4 min-w-4 place-items-center rounded-full bg-bad px-1 text-[0.625rem] leading-none font-semibold text-card"
            >
              {unread > 99 ? "99+" : unread}
            </span>
          )}
        </Button>
      </Popover.Trigger>
      <Popover.Portal>
        <Popover.Content
          align="end"
          sideOffset={6}
          collisionPadding={12}
          aria-label="Notifications"
          className="z-50 flex max-h-[min(32rem,75dvh)] w-96 max-w-(--radix-popover-content-available-width) flex-col overflow-hidden rounded-2xl border border-line bg-raised shadow-pop data-[state=open]:animate-[pop-in_120ms]"
        >
          <Inbox unreadOnly={unreadOnly} onUnreadOnly={setUnreadOnly} onLeave={() => setOpen(false)} />
        </Popover.Content>
      </Popover.Portal>
    </Popover.Root>
  );
}

type InboxProps = { unreadOnly: boolean; onUnreadOnly: (on: boolean) => void; onLeave: () => void };

function Inbox({ unreadOnly, onUnreadOnly, onLeave }: InboxProps) {
  const query = useNotifications(unreadOnly);
  const markRead = useMarkRead();
  const shown = query.data?.notifications ?? [];
  const unreadIds = shown.filter(({ read }) => !read).map(({ id }) => id);
  return (
    <>
      <div className="flex items-center gap-1 border-b border-line py-2.5 pr-2.5 pl-4">
        <h2 className="mr-auto font-semibold tracking-tight">Notifications</h2>
        <Button size="small" variant="ghost" aria-pressed={unreadOnly} onClick={() => onUnreadOnly(!unreadOnly)}>
          {unreadOnly ? "Show all" : "Unread only"}
        </Button>
        {unreadIds.length > 0 && (
          <Button size="small" variant="ghost" isBusy={markRead.isPending} onClick={() => markRead.mutate(unreadIds)}>
            <CheckCheck aria-hidden />
            Mark all read
          </Button>
        )}
      </div>
      <div className="overflow-y-auto">
        {query.isPending && (
          <div className="space-y-4 p-4">
            {[0, 1, 2].map((row) => (
              <div key={row} className="space-y-2">
                <Skeleton className="h-4 w-2/3" />
                <Skeleton className="h-3.5 w-full" />
              </div>
            ))}
          </div>
        )}
        {query.isError && !query.data && <Failed error={query.error} onRetry={() => void query.refetch()} />}
        {query.data && shown.length === 0 && (
          <p className="flex flex-col items-center gap-3 px-6 py-12 text-sm text-soft">
            <BellOff className="size-5" aria-hidden />
            {unreadOnly ? "No unread notifications." : "No notifications yet. Events of your jobs show here."}
          </p>
        )}
        <ul>
          {shown.map((notification) => (
            <Entry key={notification.id} notification={notification} onLeave={onLeave} onRead={() => markRead.mutate([notification.id])} />
          ))}
        </ul>
      </div>
      <p className="border-t border-line px-4 py-2.5 text-[0.8125rem]">
        <Link to="/webhooks" className="text-brand underline-offset-4 hover:underline" onClick={onLeave}>
          Send to a webhook
        </Link>
      </p>
    </>
  );
}

function Entry({ notification, onRead, onLeave }: { notification: Notification; onRead: () => void; onLeave: () => void }) {
  const navigate = useNavigate();
  const path = notification.action_url;
  const text = (
    <>
      <span className="flex items-baseline justify-between gap-3">
        <span className={cn("text-sm", notification.read ? "text-soft" : "font-medium")}>{notification.title}</span>
        <span className="text-xs text-soft">{notification.created_at && <TimeAgo at={notification.created_at} />}</span>
      </span>
      <span className="mt-0.5 block text-[0.8125rem] text-pretty break-words text-soft">{notification.message}</span>
    </>
  );
  return (
    <li className="flex items-start gap-2 border-b border-line py-3 pr-2.5 pl-4 last:border-0">
      <span
        aria-hidden
        className={cn("mt-1.5 size-2 shrink-0 rounded-full", notification.read ? "bg-transparent" : "bg-brand")}
      />
      {/* Only a path of this site is a link. */}
      {path?.startsWith("/") && !path.startsWith("//") ? (
        <button
          type="button"
          className="min-w-0 grow rounded-md text-left"
          onClick={() => {
            if (!notification.read) onRead();
            onLeave();
            void navigate(path);
          }}
        >
          {text}
        </button>
      ) : (
        <div className="min-w-0 grow">{text}</div>
      )}
      {!notification.read && (
        <Button size="icon" variant="ghost" className="size-7" aria-label={`Mark as read: ${notification.title}`} onClick={onRead}>
          <CheckCheck aria-hidden />
        </Button>
      )}
    </li>
  );
}
