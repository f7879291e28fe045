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

/** The two limits at which a job is stopped, whatever the estimate said. */
export function LimitsSection({ catalogue, configuration, estimate, onChange }: Props) {
  const { max_cost_usd: cost, max_duration_hours: hours } = configuration.values;
  const tooDear = estimate && cost !== null && cost < estimate.estimated_cost;
  const tooLong = estimate && hours !== null && hours < estimate.estimated_duration_hours;
  return (
    <Section id="stops" title="Limits" aside={<span className="text-[0.8125rem] text-soft">Optional</span>}>
      <div className="grid gap-x-8 gap-y-5 sm:grid-cols-2">
        <NumberSlider
          boxOnly
          catalogue={catalogue}
          field="max_cost_usd"
          label="Most it may cost, $"
          placeholder="none"
          value={cost}
          onChange={(value) => onChange(withValue(configuration, "max_cost_usd", value))}
          hint={
            tooDear
              ? `Less than the estimate of ${money(estimate.estimated_cost)}: it would be stopped before it is done.`
              : "The job is stopped when it has cost this much. You are told at 80 %."
          }
        />
        <NumberSlider
          boxOnly
          catalogue={catalogue}
          field="max_duration_hours"
          label="Longest it may run, hours"
          placeholder="none"
          value={hours}
          onChange={(value) => onChange(withValue(configuration, "max_duration_hours", value))}
          hint={
            tooLong
              ? `Less than the estimate of ${duration(estimate.estimated_duration_hours)}: it would be stopped before it is done.`
              : "Time on GPUs over all attempts. Time in the queue does not count."
          }
        />
      </div>
    </Section>
  );
}
