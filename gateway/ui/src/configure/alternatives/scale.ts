/** A logarithmic scale from values to pixels, with some room at both ends. */
export function logScale(values: readonly number[], from: number, to: number): (value: number) => number {
  const low = Math.log(Math.min(...values) / 1.08);
  const high = Math.log(Math.max(...values) * 1.08);
  return (value) => from + ((Math.log(value) - low) / (high - low)) * (to - from);
}

/** Steps between ticks of money, in dollars. */
const MONEY = [1, 2, 5];
/** Durations that a clock face suggests, in hours: 1, 2, 5, 10, 15, 30 min, then 1, 2, 3, 6, 12 h, then days. */
const DURATIONS = [1 / 60, 2 / 60, 5 / 60, 10 / 60, 15 / 60, 0.5, 1, 2, 3, 6, 12, 24, 48, 96, 168, 336, 720, 1440, 4320];

/** Round amounts within a range: 1, 2 and 5 times each power of ten. */
export function moneyTicks(values: readonly number[]): number[] {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    for (const digit of MONEY) {
      const value = Number((digit * 10 ** power).toPrecision(3));
      if (value >= low / 1.08 && value <= high * 1.08) ticks.push(value);
    }
  }
  return ticks;
}

/** Round durations within a range, in hours. */
export function durationTicks(values: readonly number[]): number[] {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return DURATIONS.filter((value) => value >= low / 1.08 && value <= high * 1.08);
}

/** Leaves out ticks whose labels would be closer than `distance` pixels. */
export function spacedTicks(ticks: readonly number[], position: (value: number) => number, distance: number): number[] {
  const kept: number[] = [];
  for (const tick of ticks) {
    const last = kept.at(-1);
    if (last === undefined || Math.abs(position(tick) - position(last)) >= distance) kept.push(tick);
  }
  return kept;
}
