import { Toaster } from "sonner";

import { useTheme } from "@/lib/theme";

export function Toasts() {
  const { isDark } = useTheme();
  return (
    <Toaster
      theme={isDark ? "dark" : "light"}
      position="top-right"
      offset={{ top: 68 }}
      mobileOffset={{ top: 64 }}
      duration={6000}
      closeButton
      toastOptions={{
        classNames: {
          toast: "!rounded-xl !border-line !bg-raised !text-ink !shadow-pop !font-sans",
          description: "!text-soft",
          actionButton: "!bg-brand !text-brand-ink",
          closeButton: "!bg-raised !border-line !text-soft",
          error: "[&_[data-icon]]:!text-bad",
          success: "[&_[data-icon]]:!text-good",
        },
      }}
    />
  );
}
