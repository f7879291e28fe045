import { useId } from "react";

import type { ComparisonPoint } from "@/api/types";
import { Button } from "@/components/ui/button";
import { closestPoint, isGoal, pointName, type GoalResults, type Goals } from "./comparison";
import { duration, money } from "@/lib/format";
import { NumberBox } from "@/configure/form/number-box";

type Props = {
  goals: Goals;
  onGoals: (goals: Goals) => void;
  points: readonly ComparisonPoint[];
  results: GoalResults;
  isCurrent: (point: ComparisonPoint) => boolean;
  onSelect: (point: ComparisonPoint) => void;
};

/** The cheapest point by a deadline and the fastest within a budget. */
export function GoalsForm({ goals, onGoals, ...rest }: Props) {
  return (
    <div className="mb-4 grid gap-x-8 gap-y-4 border-b border-line pb-4 sm:grid-cols-2">
      <Goal
        {...rest}
        goal="deadline"
        label="Deadline, hours"
        value={goals.deadline}
        onValue={(deadline) => onGoals({ ...goals, deadline })}
        result={rest.results.cheapest}
      />
      <Goal
        {...rest}
        goal="budget"
        label="Budget, $"
        value={goals.budget}
        onValue={(budget) => onGoals({ ...goals, budget })}
        result={rest.results.fastest}
      />
    </div>
  );
}

type GoalProps = Omit<Props, "goals" | "onGoals" | "results"> & {
  goal: keyof Goals;
  label: string;
  value: number | null;
  onValue: (value: number | null) => void;
  result: number | null;
};

function Goal({ goal, label, value, onValue, result, points, isCurrent, onSelect }: GoalProps) {
  const id = useId();
  const isInvalid = value !== null && !isGoal(value);
  const point = result === null ? undefined : points[result];
  const limit = isGoal(value) ? (goal === "deadline" ? duration(value) : money(value)) : "";
  return (
    <div>
      <NumberBox
        id={id}
        label={label}
        value={value}
        text={isGoal(value) ? String(value) : ""}
        isInvalid={isInvalid}
        describedBy={`${id}-result`}
        placeholder="none"
        onChange={onValue}
      />
      {/* As high as a result, so that nothing moves when one arrives. */}
      <div id={`${id}-result`} aria-live="polite" className="mt-1.5 flex min-h-10 items-center justify-between gap-3 text-[0.8125rem] leading-snug text-soft">
        {isInvalid ? (
          <p className="text-bad">Enter a number above 0.</p>
        ) : value === null ? (
          <p>{goal === "deadline" ? "The cheapest configuration by the deadline." : "The fastest configuration within the budget."}</p>
        ) : point ? (
          <>
            <p className="figures">
              <span className="font-medium text-ink">{pointName(point)}</span> for {money(point.estimated_cost)} in{" "}
              {duration(point.estimated_duration_hours)}
              {point.hours_p90 === null ? "" : point.is_quote ? ", at P90 within the goal" : ", but not a quote: few measured runs"}
            </p>
            {isCurrent(point) ? (
              <span className="shrink-0 text-xs text-brand">Selected</span>
            ) : (
              <Button size="small" className="shrink-0" aria-label={`Select ${pointName(point)}, the ${goal === "deadline" ? "cheapest within" : "fastest for at most"} ${limit}`} onClick={() => onSelect(point)}>
                Select
              </Button>
            )}
          </>
        ) : (
          <p className="text-warn">
            {goal === "deadline" ? `No configuration completes within ${limit}.` : `No configuration costs at most ${limit}.`} {closestPoint(points, goal) ?? "None fits into memory"}
            {points.some(({ hours_p90: p90 }) => p90 !== null) && " at P90"}.
          </p>
        )}
      </div>
    </div>
  );
}
