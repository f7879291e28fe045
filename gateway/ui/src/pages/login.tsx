import { LogIn } from "lucide-react";
import { Navigate, useNavigate, useSearchParams } from "react-router";

import { explain } from "@/api/errors";
import { Brand } from "@/app/brand";
import { ThemeMenu } from "@/app/theme-menu";
import { Button } from "@/components/ui/button";
import { Skeleton } from "@/components/ui/skeleton";
import { useSession, useSignIn } from "@/app/session";
import { useTitle } from "@/hooks/title";

/** The page to return to, if it is a path of this site. Browsers ignore tabs and line breaks in a URL, so none may be in it. */
export function safeNext(next: string | null): string {
  return next && /^\/(?![/\\])\P{Cc}*$/u.test(next) && !next.startsWith("/login") ? next : "/datasets";
}

export function LoginPage() {
  useTitle("Sign in");
  const [search] = useSearchParams();
  const next = safeNext(search.get("next"));
  const session = useSession();
  const signIn = useSignIn();
  const navigate = useNavigate();
  if (session.data?.user_id && signIn.isIdle) return <Navigate to={next} replace />;
  const failure = signIn.error ?? session.error;
  return (
    <main className="grid min-h-dvh place-items-center px-4 py-10">
      <div className="absolute top-3 right-3">
        <ThemeMenu />
      </div>
      <div className="w-full max-w-sm">
        <div className="mb-8 flex justify-center">
          <Brand large />
        </div>
        <div className="panel p-7">
          <h1 className="text-lg font-semibold tracking-tight">Sign in</h1>
          {session.isPending ? (
            <div className="mt-3 space-y-3">
              <Skeleton className="h-10 w-full" />
              <Skeleton className="h-11 w-full" />
            </div>
          ) : session.data?.dev_issuer ? (
            <>
              <p className="mt-1.5 text-sm text-pretty text-soft">
                This development server signs you in as its demo user, without a password.
              </p>
              <Button
                variant="primary"
                size="large"
                className="mt-5 w-full"
                isBusy={signIn.isPending}
                disabled={signIn.isPending}
                onClick={() => signIn.mutate(undefined, { onSuccess: () => void navigate(next, { replace: true }) })}
              >
                {!signIn.isPending && <LogIn aria-hidden />}
                Continue as the demo user
              </Button>
            </>
          ) : (
            <p className="mt-1.5 text-sm text-pretty text-soft">
              Sign in with your organisation&rsquo;s identity provider, which sets this site&rsquo;s session cookie. Then return to this page.
            </p>
          )}
          {failure && (
            <p role="alert" className="mt-4 rounded-lg bg-bad-soft px-3 py-2 text-sm text-bad">
              {explain(failure).title}. {explain(failure).description}
            </p>
          )}
        </div>
        <p className="mt-6 text-center text-sm text-balance text-soft">
          Configure a fine-tuning job, see its cost, and start it.
        </p>
      </div>
    </main>
  );
}
