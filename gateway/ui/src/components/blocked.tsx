type Props = { id: string; children: string | null };

/** The reason why a button is disabled, shown beside it and read out with it. */
export function Blocked({ id, children }: Props) {
  return (
    <p id={id} className="mr-auto text-[0.8125rem] text-soft empty:hidden">
      {children}
    </p>
  );
}
