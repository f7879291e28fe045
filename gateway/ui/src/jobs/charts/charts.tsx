import { useState } from "react";

import { Dialog } from "@/components/ui/dialog";
import { LineChart } from "./line-chart";
import type { Chart } from "./series";

const HEIGHT = 180;
const ENLARGED_HEIGHT = 420;

type Props = { charts: readonly Chart[]; syncKey: string };

/** Charts with a shared crosshair, smoothing and a logarithmic scale. */
export function Charts({ charts, syncKey }: Props) {
  const [smoothing, setSmoothing] = useState(0);
  const [isLogarithmic, setLogarithmic] = useState(false);
  const [enlarged, setEnlarged] = useState<string | null>(null);
  const large = charts.find(({ title }) => title === enlarged);
  const options = { smoothing, isLogarithmic, syncKey };
  return (
    <>
      <div className="mb-4 flex flex-wrap items-center gap-x-6 gap-y-2 text-[0.8125rem]">
        <label className="flex items-center gap-2.5">
          Smoothing
          <input
            type="range"
            min={0}
            max={0.99}
            step={0.01}
            value={smoothing}
            className="w-32 accent-(--brand)"
            onChange={({ target }) => setSmoothing(Number(target.value))}
          />
          <span className="figures w-8 text-soft">{smoothing.toFixed(2)}</span>
        </label>
        <label className="flex items-center gap-2">
          <input
            type="checkbox"
            className="size-4 accent-(--brand)"
            checked={isLogarithmic}
            onChange={({ target }) => setLogarithmic(target.checked)}
          />
          Log scale
        </label>
        <span className="text-soft max-sm:hidden">Drag to zoom, double-click to reset.</span>
      </div>
      <div className="grid gap-5 *:min-w-0 sm:grid-cols-2">
        {charts.map((chart) => (
          <LineChart key={chart.title} chart={chart} height={HEIGHT} {...options} onEnlarge={() => setEnlarged(chart.title)} />
        ))}
      </div>
      {large && (
        <Dialog open size="full" onOpenChange={(open) => !open && setEnlarged(null)} title={large.title}>
          <LineChart chart={large} height={ENLARGED_HEIGHT} {...options} syncKey={`${syncKey} enlarged`} />
        </Dialog>
      )}
    </>
  );
}
