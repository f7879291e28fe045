type Props = { id: string; children: string | null };

/** Why the button that it describes is disabled, in view beside it. */
export function Blocked({ id, children }: Props) {
  return (
    <p id={id} className="mr-auto text-[0.8125rem] text-soft empty:hidden">
      {children}
    </p>
  );
}
