import { describe, expect, it } from "vitest";

import { filtersFromSearch, queryOfFilters, searchOfFilters, sortedBy } from "./filters";

const parse = (search: string) => filtersFromSearch(new URLSearchParams(search));

describe("filters of the jobs list", () => {
  it.each([
    "",
    "status=failed&page=3",
    "search=night+run&label=eval&label=two+words&model=llama-3.1-8b&limit=50",
    "sort=cost&ascending=true",
    "sort=name&ascending=false&page=2",
    "ascending=true",
  ])("come back from the URL as they went in: %s", (search) => expect(searchOfFilters(parse(search)).toString()).toBe(search));

  it("have a default for what is not valid", () => {
    expect(parse("status=lost&sort=colour&limit=7&page=-1&model=&label=a,b&label=%20&label=ok&label=ok&search=%20")).toEqual({ ...parse(""), labels: ["ok"] });
  });

  it("ask the API for no more than is chosen", () => {
    expect(queryOfFilters(parse(""))).toEqual({ page: 1, limit: 10 });
    expect(queryOfFilters(parse("status=failed&label=a&model=llama-3.1-8b&search=x&sort=name&limit=25&page=2"))).toEqual({
      page: 2,
      limit: 25,
      status: "failed",
      labels: ["a"],
      base_model: "llama-3.1-8b",
      search: "x",
      sort: "name",
      ascending: true,
    });
    expect(queryOfFilters(parse("ascending=true"))).toEqual({ page: 1, limit: 10, sort: "created", ascending: true });
  });

  it("are sorted by a column, and the other way round by it once more, from the first page", () => {
    const once = sortedBy(parse("page=4"), "cost");
    expect(once).toMatchObject({ sort: "cost", ascending: false, page: 1 });
    expect(sortedBy(once, "cost")).toMatchObject({ sort: "cost", ascending: true });
    expect(sortedBy(once, "name")).toMatchObject({ sort: "name", ascending: true });
  });
});
