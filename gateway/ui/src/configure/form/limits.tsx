import type { Catalogue, Estimate } from "@/api/types";
import { withValue, type Configuration } from "@/configure/model/configuration";
import { duration, money } from "@/lib/format";
import { NumberSlider } from "./number-slider";
import { Section } from "@/components/section";

type Props = {
  catalogue: Catalogue;
  configuration: Configuration;
  estimate: Estimate | undefined;
  onChange: (changed: Configuration) => void;
};

/** Cost and duration limits at which a job is stopped. */
export function LimitsSection({ catalogue, configuration, estimate, onChange }: Props) {
  const { max_cost_usd: cost, max_duration_hours: hours } = configuration.values;
  const isBelowCost = estimate && cost !== null && cost < estimate.estimated_cost;
  const isBelowDuration = estimate && hours !== null && hours < estimate.estimated_duration_hours;
  return (
    <Section id="limits" title="Limits" aside={<span className="text-[0.8125rem] text-soft">Optional</span>}>
      <div className="grid gap-x-8 gap-y-5 sm:grid-cols-2">
        <NumberSlider
          boxOnly
          catalogue={catalogue}
          field="max_cost_usd"
          label="Cost limit, $"
          placeholder="none"
          value={cost}
          onChange={(value) => onChange(withValue(configuration, "max_cost_usd", value))}
          hint={
            isBelowCost
              ? `Less than the estimate of ${money(estimate.estimated_cost)}: the job would be stopped before it completes.`
              : "The job is stopped at this cost. A notification is sent at 80 %."
          }
        />
        <NumberSlider
          boxOnly
          catalogue={catalogue}
          field="max_duration_hours"
          label="Duration limit, hours"
          placeholder="none"
          value={hours}
          onChange={(value) => onChange(withValue(configuration, "max_duration_hours", value))}
          hint={
            isBelowDuration
              ? `Less than the estimate of ${duration(estimate.estimated_duration_hours)}: the job would be stopped before it completes.`
              : "GPU time over all attempts. Time in the queue does not count."
          }
        />
      </div>
    </Section>
  );
}
