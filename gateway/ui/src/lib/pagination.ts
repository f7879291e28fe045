/** The page number in a URL. Anything that is not a valid number is page 1. */
export function pageFromSearch(search: URLSearchParams): number {
  const page = Number(search.get("page") ?? "1");
  return Number.isInteger(page) && page >= 1 && page < 2 ** 31 ? page : 1;
}
