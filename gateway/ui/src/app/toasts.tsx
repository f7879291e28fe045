import { Toaster } from "sonner";

import { useTheme } from "./theme";

export function Toasts() {
  const { isDark } = useTheme();
  return (
    <Toaster
      theme={isDark ? "dark" : "light"}
      // Beside the price and the Start button, or above them, and above what can be done with selected jobs: they stay in reach.
      position="bottom-left"
      offset={{ bottom: 100 }}
      mobileOffset={{ bottom: 100 }}
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
