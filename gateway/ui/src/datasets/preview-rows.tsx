import { Bot, CircleAlert, Settings2, User, Wrench, type LucideIcon } from "lucide-react";
import type { ReactNode } from "react";

import type { PreviewMessage, PreviewRow } from "@/api/types";
import { Badge } from "@/components/ui/badge";
import { cn } from "@/lib/cn";
import { count } from "@/lib/format";

/** Rows as they are trained on: conversations as chats, prompts with completions, texts, and bad rows with their reasons. */
export function PreviewRows({ rows }: { rows: readonly PreviewRow[] }) {
  return (
    <ol aria-label="Rows" className="space-y-4">
      {rows.map((row) => (
        <li key={row.row} aria-label={`Row ${row.row}`} className="panel p-4">
          <p className="figures mb-3 flex flex-wrap items-center gap-x-3 gap-y-1 text-xs text-soft">
            <span className="font-medium text-ink">Row {count(row.row)}</span>
            <span>line {count(row.line)}</span>
            {row.error === null && <span>{count(row.tokens)} tokens</span>}
            {row.truncated && <span>truncated in this preview</span>}
          </p>
          <Content row={row} />
        </li>
      ))}
    </ol>
  );
}

function Content({ row }: { row: PreviewRow }) {
  if (row.error !== null) {
    return (
      <div className="space-y-2 text-sm">
        <p className="flex gap-2 text-bad">
          <CircleAlert className="mt-0.5 size-4 shrink-0" aria-hidden />
          <span className="min-w-0 break-words">{row.error}</span>
        </p>
        {row.source && <Code>{row.source}</Code>}
      </div>
    );
  }
  if (row.text !== null) return <Bubble icon={Bot} name="Text" trained text={row.text} />;
  if (row.completion !== null) {
    return (
      <div className="space-y-3">
        <Bubble icon={User} name="Prompt" text={row.prompt ?? ""} />
        <Bubble icon={Bot} name="Completion" trained text={row.completion} />
      </div>
    );
  }
  return (
    <div className="space-y-3">
      {row.tools !== null && (
        <details className="text-sm">
          <summary className="cursor-pointer text-soft">Tools</summary>
          <Code>{row.tools}</Code>
        </details>
      )}
      {row.messages.map((message, index) => (
        <Message key={index} message={message} />
      ))}
    </div>
  );
}

const ROLES: Readonly<Record<string, { icon: LucideIcon; name: string }>> = {
  system: { icon: Settings2, name: "System" },
  user: { icon: User, name: "User" },
  assistant: { icon: Bot, name: "Assistant" },
  tool: { icon: Wrench, name: "Tool" },
};

function Message({ message: { role, name, content, reasoning, tool_calls: calls, trained } }: { message: PreviewMessage }) {
  const shown = ROLES[role] ?? { icon: User, name: role };
  return (
    <Bubble
      icon={shown.icon}
      name={name ? `${shown.name} ${name}` : shown.name}
      text={content}
      trained={trained}
      untrained={role === "assistant" && !trained}
    >
      {reasoning && (
        <details open className="mb-2 text-soft">
          <summary className="cursor-pointer text-xs">Reasoning</summary>
          <Text>{reasoning}</Text>
        </details>
      )}
      {calls.map((call, index) => (
        <Code key={index}>{`${call.name}(${call.arguments})`}</Code>
      ))}
    </Bubble>
  );
}

type BubbleProps = { icon: LucideIcon; name: string; text: string; trained?: boolean; untrained?: boolean; children?: ReactNode };

function Bubble({ icon: Icon, name, text, trained, untrained, children }: BubbleProps) {
  return (
    <div className={cn("rounded-xl border border-line px-3.5 py-2.5 text-sm", trained ? "bg-brand-soft/40" : "bg-sunken/40")}>
      <p className="mb-1 flex items-center gap-2 text-xs font-medium text-soft">
        <Icon className="size-3.5" aria-hidden />
        {name}
        {trained && <Badge tone="brand">Trained on</Badge>}
        {untrained && <Badge>Not trained on</Badge>}
      </p>
      {children}
      {text ? <Text>{text}</Text> : !children && <p className="text-soft italic">Empty</p>}
    </div>
  );
}

function Text({ children }: { children: string }) {
  return <p className="max-h-80 overflow-y-auto break-words whitespace-pre-wrap">{children}</p>;
}

function Code({ children }: { children: string }) {
  return (
    <pre className="mt-1 max-h-60 overflow-auto rounded-md bg-sunken px-2.5 py-1.5 text-xs break-words whitespace-pre-wrap">
      {children}
    </pre>
  );
}
