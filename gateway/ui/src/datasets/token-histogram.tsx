import type { Dataset } from "@/api/types";
import { count } from "@/lib/format";

/** How long the samples are: a bar for each bin, as high as it has samples. */
export function TokenHistogram({ dataset: { token_histogram: bins, p50_tokens, p95_tokens, longest_tokens } }: { dataset: Dataset }) {
  const highest = Math.max(...bins.map(({ samples }) => samples));
  return (
    <figure>
      <div
        role="img"
        aria-label={`Tokens per sample: median ${p50_tokens}, 95th percentile ${p95_tokens}, longest ${longest_tokens}`}
        className="flex h-28 items-end gap-px"
      >
        {bins.map(({ up_to_tokens, samples }, index) => (
          <div
            key={up_to_tokens}
            title={`${count((bins[index - 1]?.up_to_tokens ?? -1) + 1)} to ${count(up_to_tokens)} tokens: ${count(samples)} samples`}
            className="min-w-1 max-w-16 grow rounded-t-sm bg-brand"
            style={{ height: `${Math.max(2, (samples / highest) * 100)}%` }}
          />
        ))}
      </div>
      <div aria-hidden className="figures mt-1.5 flex max-w-full justify-between border-t border-line pt-1 text-xs text-soft">
        <span>{count(bins[0]?.up_to_tokens ?? 0)}</span>
        <span>tokens per sample</span>
        <span>{count(longest_tokens ?? 0)}</span>
      </div>
      <dl className="figures mt-4 grid grid-cols-3 gap-3 text-sm">
        <Figure label="Median" value={p50_tokens} />
        <Figure label="95th percentile" value={p95_tokens} />
        <Figure label="Longest" value={longest_tokens} />
      </dl>
    </figure>
  );
}

function Figure({ label, value }: { label: string; value: number | null }) {
  return (
    <div>
      <dt className="text-xs text-soft">{label}</dt>
      <dd>{value === null ? "–" : count(value)}</dd>
    </div>
  );
}
