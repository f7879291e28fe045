import { Check, Monitor, Moon, Sun } from "lucide-react";
import { DropdownMenu } from "radix-ui";

import { useTheme, type Theme } from "./theme";
import { Button } from "@/components/ui/button";

export const menuContent =
  "z-50 min-w-44 rounded-xl border border-line bg-raised p-1 shadow-pop data-[state=open]:animate-[pop-in_120ms]";
export const menuItem =
  "flex cursor-pointer items-center gap-2.5 rounded-lg px-2.5 py-2 text-sm outline-none select-none data-highlighted:bg-sunken";

const CHOICES = [
  { theme: "light", label: "Light", icon: Sun },
  { theme: "dark", label: "Dark", icon: Moon },
  { theme: "system", label: "System", icon: Monitor },
] as const;

export function ThemeMenu() {
  const { theme, isDark, setTheme } = useTheme();
  const Icon = isDark ? Moon : Sun;
  return (
    <DropdownMenu.Root>
      <DropdownMenu.Trigger asChild>
        <Button variant="ghost" size="icon" aria-label="Theme">
          <Icon aria-hidden />
        </Button>
      </DropdownMenu.Trigger>
      <DropdownMenu.Portal>
        <DropdownMenu.Content align="end" sideOffset={6} className={menuContent}>
          <DropdownMenu.RadioGroup value={theme} onValueChange={(chosen) => setTheme(chosen as Theme)}>
            {CHOICES.map(({ theme: value, label, icon: Choice }) => (
              <DropdownMenu.RadioItem key={value} value={value} className={menuItem}>
                <Choice className="size-4 text-soft" aria-hidden />
                {label}
                <DropdownMenu.ItemIndicator className="ml-auto">
                  <Check className="size-4 text-brand" aria-hidden />
                </DropdownMenu.ItemIndicator>
              </DropdownMenu.RadioItem>
            ))}
          </DropdownMenu.RadioGroup>
        </DropdownMenu.Content>
      </DropdownMenu.Portal>
    </DropdownMenu.Root>
  );
}
