import type { Catalogue, ComparisonPoint, EstimateRequest } from "@/api/types";
import { Button } from "@/components/ui/button";
import { sameSettingsRequest } from "@/configure/alternatives/comparison";
import { withGpuType, withValue, type Configuration } from "@/configure/model/configuration";
import { duration, money } from "@/lib/format";
import { useComparison } from "./queries";

type Props = {
  catalogue: Catalogue;
  configuration: Configuration;
  request: EstimateRequest;
  onChange: (changed: Configuration) => void;
};

/** The cheapest and the fastest other GPUs for the same settings, as the Estimator chose them. */
export function OtherGpus({ catalogue, configuration, request, onChange }: Props) {
  const { data } = useComparison(sameSettingsRequest(catalogue, configuration, request));
  const choices = [
    { name: "Cheapest", point: data?.points[data.cheapest ?? -1] },
    { name: "Fastest", point: data?.points[data.fastest ?? -1] },
  ];
  const isCurrent = ({ gpu_config: gpus }: ComparisonPoint) =>
    gpus.type === request.gpu_config.type && gpus.count === request.gpu_config.count;
  // Two lines high always, so that the layout does not shift when they arrive.
  return (
    <div className="mt-2 min-h-22 border-t border-line pt-3 text-[0.8125rem]">
      <p className="font-medium text-soft">Same settings on other GPUs</p>
      <ul aria-label="Same settings on other GPUs">
        {choices.map(
          ({ name, point }) =>
            point && (
              <li key={name} className="figures flex min-h-6 items-center justify-between gap-2">
                {/* Another text is another element: text that only grows counts as a shift of the layout. */}
                <span key={summary(name, point)} className="min-w-0">
                  {summary(name, point)}
                </span>
                {isCurrent(point) ? (
                  <span className="text-soft">selected</span>
                ) : (
                  <Button
                    variant="link"
                    size="bare"
                    className="min-h-6 text-[0.8125rem]"
                    aria-label={`Use ${hardware(point)}`}
                    onClick={() => {
                      const changed = { ...withGpuType(catalogue, configuration, point.gpu_config.type), provider: null };
                      onChange(withValue(changed, "gpu_config.count", point.gpu_config.count));
                    }}
                  >
                    Use
                  </Button>
                )}
              </li>
            ),
        )}
      </ul>
    </div>
  );
}

function hardware({ gpu_config: gpus }: ComparisonPoint): string {
  return `${gpus.count} × ${gpus.type}`;
}

function summary(name: string, point: ComparisonPoint): string {
  return `${name}: ${hardware(point)}, ${money(point.estimated_cost)}, ${duration(point.estimated_duration_hours)}`;
}
