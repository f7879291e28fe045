import { Fragment, useState } from "react";
import { Link } from "react-router";

import type { Job } from "@/api/types";
import { Panel } from "@/jobs/details/panel";
import { cn } from "@/lib/cn";
import { comparedGroups } from "./table";

/** Results, forecasts and configurations side by side. Rows of the configuration that differ are marked. */
export function Configurations({ jobs, names }: { jobs: readonly Job[]; names: ReadonlyMap<string, string> }) {
  const [onlyDifferences, setOnlyDifferences] = useState(false);
  const groups = comparedGroups(jobs);
  const configuration = groups.filter(({ isConfiguration }) => isConfiguration).flatMap(({ rows }) => rows);
  const differing = configuration.filter(({ differs }) => differs).length;
  return (
    <Panel
      title="Side by side"
      aside={
        <label className="flex cursor-pointer items-center gap-2 text-[0.8125rem]">
          <input
            type="checkbox"
            className="size-4 accent-(--brand)"
            checked={onlyDifferences}
            onChange={({ target }) => setOnlyDifferences(target.checked)}
          />
          Only differences
        </label>
      }
    >
      <p className="mb-3 text-sm text-soft">
        {differing === 0 ? "The configurations are the same." : `${differing} of ${configuration.length} settings differ.`}
      </p>
      {/* A scrolling table needs a tab stop, so that the keyboard can scroll it. */}
      <div tabIndex={0} role="region" aria-label="Jobs side by side" className="overflow-x-auto rounded-lg border border-line">
        <table className="w-full text-left text-sm">
          <thead>
            <tr className="border-b border-line bg-sunken/50">
              <th scope="col" className="sticky left-0 z-1 w-32 min-w-28 bg-card px-3 py-2 text-xs font-medium text-soft sm:min-w-40">
                Job
              </th>
              {jobs.map(({ id }) => (
                <th key={id} scope="col" className="max-w-60 min-w-36 px-3 py-2 align-top font-medium">
                  <Link to={`/training/jobs/${id}`} className="line-clamp-3 text-brand underline-offset-4 wrap-anywhere hover:underline">
                    {names.get(id)}
                  </Link>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {groups.map(({ title, isConfiguration, rows }) => {
              const listed = rows.filter(({ differs }) => differs || !onlyDifferences);
              return listed.length === 0 ? null : (
                <Fragment key={title}>
                  <tr className="border-b border-line bg-sunken">
                    <th scope="rowgroup" colSpan={jobs.length + 1} className="px-3 py-1.5 text-xs font-semibold">
                      <span className="sticky left-3">{title}</span>
                    </th>
                  </tr>
                  {listed.map(({ name, values, differs }) => {
                    const isMarked = isConfiguration && differs;
                    return (
                      <tr key={name} className="border-b border-line last:border-0">
                        <th scope="row" className={cn("sticky left-0 z-1 bg-card px-3 py-2 align-top text-[0.8125rem] font-normal text-soft", isMarked && "bg-warn-soft text-warn")}>
                          {name}
                          {isMarked && <span className="block text-xs font-medium">differs</span>}
                        </th>
                        {values.map((value, index) => (
                          <td key={jobs[index]?.id} className={cn("figures px-3 py-2 align-top wrap-anywhere", isMarked && "bg-warn-soft font-medium")}>
                            {value}
                          </td>
                        ))}
                      </tr>
                    );
                  })}
                </Fragment>
              );
            })}
          </tbody>
        </table>
      </div>
      <p className="mt-3 text-[0.8125rem] text-soft">
        The forecast is that of each job’s creation. Its error is given for completed jobs: the others took less than the whole.
      </p>
    </Panel>
  );
}
