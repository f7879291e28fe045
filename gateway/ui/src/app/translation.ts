/**
 * Keeps React working on a page that the browser translates. Translators replace text nodes by `<font>` elements with the
 * translation. React keeps the nodes that it made: removing one throws, and what it writes into one is not seen.
 */
const standIns = new WeakMap<Node, Node>();

/** The child of `parent` that stands for a node: itself, what a translator put in its place, or around it. */
function childFor(parent: Node, node: Node): Node | null {
  for (let child: Node | undefined = node; child; child = standIns.get(child)) {
    if (child.parentNode === parent) return child;
  }
  for (let around = node.parentNode; around?.nodeName === "FONT"; around = around.parentNode) {
    if (around.parentNode === parent) return around;
  }
  return null;
}

function keepInStep(records: MutationRecord[]): void {
  for (const { type, target, addedNodes, removedNodes, previousSibling, nextSibling } of records) {
    if (type === "characterData") {
      // React wrote into a text that was replaced. It comes back, and is translated anew.
      const standIn = standIns.get(target);
      if (target.parentNode === null && standIn?.parentNode) {
        standIn.parentNode.replaceChild(target, standIn);
        standIns.delete(target);
      }
      continue;
    }
    const font = [...addedNodes, previousSibling, nextSibling].find((node) => node?.nodeName === "FONT");
    for (const node of removedNodes) {
      if (!font || font === node || node.parentNode !== null || !["#text", "FONT"].includes(node.nodeName)) continue;
      standIns.set(node, font);
      if (node.nodeName === "#text") observer.observe(node, { characterData: true });
    }
  }
}

const observer = new MutationObserver(keepInStep);

/** Starts it. Once, before React renders. */
export function keepTranslationsInStep(): void {
  // Called below with their `this`.
  // eslint-disable-next-line @typescript-eslint/unbound-method
  const { removeChild, insertBefore } = Node.prototype;
  Node.prototype.removeChild = function <T extends Node>(this: Node, child: T): T {
    removeChild.call(this, childFor(this, child) ?? child);
    return child;
  };
  Node.prototype.insertBefore = function <T extends Node>(this: Node, node: T, before: Node | null): T {
    insertBefore.call(this, node, before && (childFor(this, before) ?? before));
    return node;
  };
  observer.observe(document.body, { childList: true, subtree: true });
}
