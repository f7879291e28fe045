import { useNow } from "@/hooks/now";
import { ago, moment } from "@/lib/format";

/** How long ago something happened, with the exact time as its title. */
export function TimeAgo({ at }: { at: string }) {
  const now = useNow();
  return (
    <time dateTime={at} title={moment(at)} className="whitespace-nowrap">
      {ago(at, now)}
    </time>
  );
}
