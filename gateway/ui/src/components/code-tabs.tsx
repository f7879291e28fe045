import { Tabs } from "radix-ui";
import type { ReactNode } from "react";

import { CopyButton } from "./ui/copy-button";

export type Code = { name: string; code: string };

type Props = { label: string; codes: readonly Code[]; children?: ReactNode };

/** Code in several languages, one at a time, with a button that copies it. `children` stand beside the button. */
export function CodeTabs({ label, codes, children }: Props) {
  return (
    <Tabs.Root defaultValue="0">
      <Tabs.List aria-label={label} className="flex gap-1">
        {codes.map(({ name }, index) => (
          <Tabs.Trigger
            key={name}
            value={String(index)}
            className="h-8 cursor-pointer rounded-lg px-3 text-[0.8125rem] font-medium text-soft hover:bg-sunken data-[state=active]:bg-brand-soft data-[state=active]:text-brand"
          >
            {name}
          </Tabs.Trigger>
        ))}
      </Tabs.List>
      {codes.map(({ name, code }, index) => (
        <Tabs.Content key={name} value={String(index)} className="mt-2">
          <pre
            tabIndex={0}
            role="region"
            aria-label={`${name} code`}
            translate="no"
            className="max-h-80 overflow-auto rounded-lg bg-sunken px-4 py-3 font-mono text-xs whitespace-pre"
          >
            {code}
          </pre>
          <div className="mt-4 flex items-center justify-between gap-3">
            <div>{children}</div>
            <CopyButton text={code} copied="Copied">
              {`Copy as ${name}`}
            </CopyButton>
          </div>
        </Tabs.Content>
      ))}
    </Tabs.Root>
  );
}
