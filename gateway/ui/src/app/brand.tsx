export function Brand({ large = false }: { large?: boolean }) {
  return (
    <span className={`flex items-center font-semibold tracking-tight ${large ? "gap-3 text-2xl" : "gap-2.5 text-[0.9375rem]"}`}>
      <svg viewBox="0 0 32 32" aria-hidden className={large ? "size-10" : "size-7"}>
        <rect width="32" height="32" rx="9" fill="#14634a" />
        <path
          d="M8 22V10h6.2a4.3 4.3 0 0 1 0 8.6H11"
          fill="none"
          stroke="#fff"
          strokeWidth="2.6"
          strokeLinecap="round"
          strokeLinejoin="round"
        />
        <circle cx="22.5" cy="21" r="2.5" fill="#7ee2b8" />
      </svg>
      <span className={large ? "" : "max-sm:sr-only"}>Pipeline</span>
    </span>
  );
}
