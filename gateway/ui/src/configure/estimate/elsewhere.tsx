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

/** The cheapest and the fastest hardware for the same settings. */
export function Elsewhere({ catalogue, configuration, request, onChange }: Props) {
  const { data } = useComparison(sameSettingsRequest(catalogue, configuration, request));
  const isCurrent = ({ gpu_config: gpus }: ComparisonPoint) =>
    gpus.type === request.gpu_config.type && gpus.count === request.gpu_config.count;
  const others = (data?.points ?? []).filter((point) => !isCurrent(point) && point.verdict !== "does_not_fit" && point.is_quote);
  const cheapest = least(others, (point) => point.estimated_cost);
  const fastest = least(others, (point) => point.estimated_duration_hours);
  const shown = [...new Set([cheapest, fastest])].filter((point) => point !== undefined);
  // As high as two lines, so that nothing moves when they arrive.
  return (
    <div className="mt-2 min-h-22 border-t border-line pt-3 text-[0.8125rem]">
      <p className="font-medium text-soft">Same settings on other GPUs</p>
      <ul aria-label="Same settings on other GPUs">
        {shown.map((point) => (
          <li key={`${point.gpu_config.count} ${point.gpu_config.type}`} className="figures flex items-center justify-between gap-2">
            <span className="min-w-0">
              {point.gpu_config.count} × {point.gpu_config.type}: {money(point.estimated_cost)}, {duration(point.estimated_duration_hours)}
            </span>
            <Button
              variant="link"
              size="bare"
              className="min-h-6 text-[0.8125rem]"
              aria-label={`Use ${point.gpu_config.count} × ${point.gpu_config.type}`}
              onClick={() => {
                const changed = { ...withGpuType(catalogue, configuration, point.gpu_config.type), provider: null };
                onChange(withValue(changed, "gpu_config.count", point.gpu_config.count));
              }}
            >
              Use
            </Button>
          </li>
        ))}
      </ul>
    </div>
  );
}

function least(points: readonly ComparisonPoint[], value: (point: ComparisonPoint) => number): ComparisonPoint | undefined {
  return points.reduce<ComparisonPoint | undefined>(
    (best, point) => (best === undefined || value(point) < value(best) ? point : best),
    undefined,
  );
}
