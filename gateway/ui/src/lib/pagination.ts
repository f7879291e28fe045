/** The page an address names; anything that is no page is the first. */
export function pageFromSearch(search: URLSearchParams): number {
  const page = Number(search.get("page") ?? "1");
  return Number.isInteger(page) && page >= 1 && page < 2 ** 31 ? page : 1;
}
