import { Pencil } from "lucide-react";
import { lazy, Suspense, useState } from "react";
import { Link } from "react-router";

import type { Job } from "@/api/types";
import { Button } from "@/components/ui/button";
import { chunk } from "@/lib/chunk";

const EditDialog = lazy(async () => ({ default: (await chunk(() => import("./edit-dialog"))).EditDialog }));

/** The labels of a job, each a link to the jobs that have it, and the button to edit them and the name. */
export function JobLabels({ job }: { job: Job }) {
  const [isEditing, setEditing] = useState(false);
  return (
    <>
      {job.labels.length > 0 && (
        <ul aria-label="Labels" className="flex min-w-0 flex-wrap gap-1">
          {job.labels.map((label) => (
            <li key={label} className="max-w-full">
              <Link
                to={`/training/jobs?label=${encodeURIComponent(label)}`}
                title={`Jobs with the label ${label}`}
                className="block max-w-64 truncate rounded-md bg-sunken px-2 text-xs leading-6 text-soft hover:text-ink"
              >
                {label}
              </Link>
            </li>
          ))}
        </ul>
      )}
      <Button variant="ghost" size="small" className="-my-1 px-2" onClick={() => setEditing(true)}>
        <Pencil aria-hidden />
        Edit name and labels
      </Button>
      <Suspense>{isEditing && <EditDialog job={job} onClose={() => setEditing(false)} />}</Suspense>
    </>
  );
}
