import { act, fireEvent, render, screen } from "@testing-library/react";
import { MemoryRouter } from "react-router";
import { expect, it } from "vitest";

import type { Job } from "@/api/types";
import { calls, installFakeNetwork, pass, wrapper } from "@/testing/network";
import { RetryWithLimit } from "./retry-with-limit";

installFakeNetwork();

it("closes its dialog once the new job is queued, even where the page goes on showing the old job", async () => {
  const job = { id: "j", status_reason: "cost_limit", max_cost_usd: 1, max_duration_seconds: null, estimated_total_cost: 3 } as Job;
  render(<RetryWithLimit job={job} />, { wrapper: ({ children }) => <MemoryRouter>{wrapper({ children })}</MemoryRouter> });
  fireEvent.click(screen.getByRole("button", { name: "Retry" }));
  fireEvent.click(screen.getByRole("button", { name: "Queue a new job" }));
  await pass(1);
  await act(() => calls[0]!.respond({ id: "new", estimated_total_cost: 3 }, 201));
  expect(screen.queryByRole("dialog")).toBeNull();
  expect(screen.getByRole("button", { name: "Retry" })).toBeTruthy();
});
