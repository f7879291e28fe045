import { expect, it, vi } from "vitest";

vi.stubGlobal("matchMedia", () => ({ matches: false, addEventListener: vi.fn(), removeEventListener: vi.fn() }));
const { safeNext } = await import("./login");

it.each([
  ["/training/jobs?page=2", "/training/jobs?page=2"],
  [null, "/datasets"],
  ["https://evil.example", "/datasets"],
  ["//evil.example", "/datasets"],
  ["/\\evil.example", "/datasets"],
  ["/\t/evil.example", "/datasets"],
  ["/\n/evil.example", "/datasets"],
  ["/login?next=/login", "/datasets"],
])("goes from %s to %s", (next, path) => expect(safeNext(next)).toBe(path));
