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
        title="Page not found"
        action={
          <Button asChild variant="primary">
            <Link to="/datasets">Go to datasets</Link>
          </Button>
        }
      >
        The address is wrong, or the page was moved.
      </Empty>
    </div>
  );
}
