/** Copies text. Over plain http there is no clipboard API, so a selection is copied instead. Rejects if neither works. */
export async function copyText(text: string): Promise<void> {
  if (typeof navigator.clipboard !== "undefined") {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = document.createElement("textarea");
  area.value = text;
  area.readOnly = true;
  area.className = "fixed opacity-0";
  // Inside an open dialog, because a dialog takes the focus back from everything outside it.
  const parent = document.querySelector("[role=dialog]") ?? document.body;
  const focused = document.activeElement;
  parent.append(area);
  area.select();
  // Deprecated, and the only way without the clipboard API.
  // eslint-disable-next-line @typescript-eslint/no-deprecated
  const isCopied = document.execCommand("copy");
  area.remove();
  if (focused instanceof HTMLElement) focused.focus();
  if (!isCopied) throw new Error("The browser does not allow copying");
}
