import { Signpost } from "lucide-react";
import { Link } from "react-router";

import { Empty } from "@/components/states";
import { Button } from "@/components/ui/button";
import { useTitle } from "@/hooks/title";

export function NotFoundPage() {
  useTitle("Not found");
  return (
    <div className="panel">
      <Empty
        isPage
        icon={Signpost}
        title="There is no such page"
        action={
          <Button asChild variant="primary">
            <Link to="/datasets">Go to the datasets</Link>
          </Button>
        }
      >
        The address may be mistyped, or the page was moved.
      </Empty>
    </div>
  );
}
