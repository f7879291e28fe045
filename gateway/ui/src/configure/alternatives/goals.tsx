import { useId } from "react";

import type { ComparisonPoint } from "@/api/types";
import { Button } from "@/components/ui/button";
import { closest, isGoal, named, type Answers, type Goals } from "./comparison";
import { duration, money } from "@/lib/format";
import { NumberBox } from "@/configure/form/number-box";

type Props = {
  goals: Goals;
  onGoals: (goals: Goals) => void;
  points: readonly ComparisonPoint[];
  answers: Answers;
  isCurrent: (point: ComparisonPoint) => boolean;
  onChoose: (point: ComparisonPoint) => void;
};

/** "Cheapest under a deadline" and "fastest under a budget", asked and answered. */
export function GoalsForm({ goals, onGoals, ...rest }: Props) {
  return (
    <div className="mb-4 grid gap-x-8 gap-y-4 border-b border-line pb-4 sm:grid-cols-2">
      <Goal
        {...rest}
        goal="deadline"
        label="Cheapest within, hours"
        value={goals.deadline}
        onValue={(deadline) => onGoals({ ...goals, deadline })}
        found={rest.answers.cheapest}
      />
      <Goal
        {...rest}
        goal="budget"
        label="Fastest for at most, $"
        value={goals.budget}
        onValue={(budget) => onGoals({ ...goals, budget })}
        found={rest.answers.fastest}
      />
    </div>
  );
}

type GoalProps = Omit<Props, "goals" | "onGoals" | "answers"> & {
  goal: keyof Goals;
  label: string;
  value: number | null;
  onValue: (value: number | null) => void;
  found: number | null;
};

function Goal({ goal, label, value, onValue, found, points, isCurrent, onChoose }: GoalProps) {
  const id = useId();
  const wrong = value !== null && !isGoal(value);
  const point = found === null ? undefined : points[found];
  const limit = isGoal(value) ? (goal === "deadline" ? duration(value) : money(value)) : "";
  return (
    <div>
      <NumberBox
        id={id}
        label={label}
        value={value}
        shown={isGoal(value) ? String(value) : ""}
        wrong={wrong}
        describedBy={`${id}-answer`}
        placeholder="any"
        onChange={onValue}
      />
      {/* Always as high as an answer: nothing moves when one comes. */}
      <div id={`${id}-answer`} aria-live="polite" className="mt-1.5 flex min-h-10 items-center justify-between gap-3 text-[0.8125rem] leading-snug text-soft">
        {wrong ? (
          <p className="text-bad">Enter a number above 0.</p>
        ) : value === null ? (
          <p>{goal === "deadline" ? "The cheapest that is done by then." : "The fastest that stays below it."}</p>
        ) : point ? (
          <>
            <p className="figures">
              <span className="font-medium text-ink">{named(point)}</span> for {money(point.estimated_cost)} in{" "}
              {duration(point.estimated_duration_hours)}
              {point.hours_p90 === null ? "" : point.is_quote ? ", and nine of ten runs meet the goal" : ", though few measured runs say so: not a quote"}
            </p>
            {isCurrent(point) ? (
              <span className="shrink-0 text-xs text-brand">Chosen</span>
            ) : (
              <Button size="small" className="shrink-0" aria-label={`Choose ${named(point)}, the ${goal === "deadline" ? "cheapest within" : "fastest for at most"} ${limit}`} onClick={() => onChoose(point)}>
                Choose
              </Button>
            )}
          </>
        ) : (
          <p className="text-warn">
            {goal === "deadline" ? `Nothing is done within ${limit}.` : `Nothing costs at most ${limit}.`} {closest(points, goal) ?? "Nothing fits into memory"}
            {points.some(({ hours_p90: p90 }) => p90 !== null) && " in nine of ten runs"}.
          </p>
        )}
      </div>
    </div>
  );
}
