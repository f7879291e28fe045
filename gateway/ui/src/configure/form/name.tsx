import { useId, useState } from "react";

import { Section } from "@/components/section";
import { Input } from "@/components/ui/input";
import type { Configuration } from "@/configure/model/configuration";
import { LabelInput } from "@/jobs/labels/label-input";
import { MAX_NAME_LENGTH } from "@/jobs/labels/labels";

type Props = { configuration: Configuration; onChange: (changed: Configuration) => void };

/** The name and the labels to find the job by later. */
export function NameSection({ configuration, onChange }: Props) {
  const id = useId();
  return (
    <Section id="name" title="Name and labels" aside={<span className="text-[0.8125rem] text-soft">Optional</span>}>
      <div className="grid gap-x-8 gap-y-5 sm:grid-cols-2">
        <div>
          <label htmlFor={`${id}-name`} className="mb-1.5 block text-sm font-medium">
            Name
          </label>
          <NameBox
            key={configuration.name}
            id={`${id}-name`}
            name={configuration.name}
            onChange={(name) => onChange({ ...configuration, name })}
          />
          <p className="mt-1.5 text-[0.8125rem] text-soft">Default: the name of the dataset.</p>
        </div>
        <div>
          <label htmlFor={`${id}-labels`} className="mb-1.5 block text-sm font-medium">
            Labels
          </label>
          <LabelInput
            id={`${id}-labels`}
            labels={configuration.labels}
            addsOnBlur
            className="h-24 content-start overflow-y-auto"
            onChange={(labels) => onChange({ ...configuration, labels })}
          />
          <p className="mt-1.5 text-[0.8125rem] text-soft">Press Enter or a comma after each label.</p>
        </div>
      </div>
    </Section>
  );
}

/** A box that reports its text once it is left: each name is another job, with an idempotency key of its own. */
function NameBox({ id, name, onChange }: { id: string; name: string; onChange: (name: string) => void }) {
  const [text, setText] = useState(name);
  return (
    <Input
      id={id}
      autoComplete="off"
      maxLength={MAX_NAME_LENGTH}
      value={text}
      onChange={({ target }) => setText(target.value)}
      onBlur={() => text.trim() !== name && onChange(text.trim())}
    />
  );
}
