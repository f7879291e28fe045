"""A job that runs while somebody watches: over server-sent events, or by asking every few seconds where there are none."""

from __future__ import annotations

import asyncio
import re
import time

import httpx
import pytest
from playwright.async_api import Page, Route, expect

from tests.browser.conftest import Calls, NewContext, Person, Trainer, stop_the_clock
from tests.deploy.processes import child

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def test_a_job_is_watched_as_it_trains(page: Page, person: Person, trainer: Trainer, calls: Calls) -> None:
    """Progress, time left, curves, cost and events follow each report at once, without asking; the end stops the asking."""
    job = await person.create_job(await person.import_dataset("Watched", pairs=400), max_cost_usd=50)
    await page.clock.install()
    await page.goto(f"/training/jobs/{job['id']}")
    await expect(page.get_by_role("region", name="Progress")).to_contain_text("Queue time is free")
    await expect(page.get_by_role("list", name="Events, newest first").get_by_role("listitem")).to_have_count(1)
    lease = await trainer.take()
    for step in (60, 120, 150):
        await trainer.report(lease, step, loss=2 - step / 100, learning_rate=5e-5, tokens_per_second=3500)
    bar = page.get_by_role("progressbar", name="Training progress")
    await expect(bar).to_have_attribute("aria-valuenow", "50")
    await expect(page.get_by_role("slider", name="Loss, by step")).to_have_attribute(
        "aria-valuetext", "0.5 at step 150"
    )
    count = len(calls.to(f"GET /api/jobs/{job['id']}"))
    reported = time.monotonic()
    await trainer.report(lease, 225, loss=0.25)
    await expect(bar).to_have_attribute("aria-valuenow", "75")
    # Before the page polls: the event was pushed.
    assert len(calls.to(f"GET /api/jobs/{job['id']}")) == count or time.monotonic() - reported > 4
    progress = page.get_by_role("region", name="Progress")
    await expect(progress).to_contain_text("225 of 300")
    await expect(progress).to_contain_text(re.compile(r"about|under a minute"))
    await expect(progress).to_contain_text("tests")
    curve = page.get_by_role("slider", name="Loss, by step")
    await expect(curve).to_have_attribute("aria-valuetext", "0.25 at step 225")
    await curve.press("Home")
    await expect(curve).to_have_attribute("aria-valuetext", "1.4 at step 60")
    cost = page.get_by_role("region", name="Cost")
    await expect(cost).to_contain_text("$50.00")
    await expect(page.get_by_role("list", name="Events, newest first")).to_contain_text("Training started")
    await trainer.complete(lease)
    await expect(progress).to_contain_text("Completed. The adapter is at s3://adapters/tests")
    await expect(cost).to_contain_text("final")
    count = len(calls.to(f"GET /api/jobs/{job['id']}"))
    bell = len(calls.to("GET /api/notifications"))
    await page.clock.run_for(20_000)  # of the page's own time, in which it asks for notifications again
    async with asyncio.timeout(15):
        while len(calls.to("GET /api/notifications")) == bell:
            await asyncio.sleep(0.02)
    assert len(calls.to(f"GET /api/jobs/{job['id']}")) == count


async def test_the_tabs_of_a_browser_share_one_stream(new_context: NewContext, person: Person) -> None:
    """Three pages in three tabs take one of their user's event streams."""

    async def streams() -> float:
        async with httpx.AsyncClient() as http:
            metrics = (await http.get(person.up.running.metrics["jobs"])).text
        return float(re.findall(r'^pipeline_open_streams_count\{.*role="user".*\} (\S+)$', metrics, re.MULTILINE)[0])

    async with asyncio.timeout(30):
        while await streams():
            await asyncio.sleep(0.1)
    job = await person.create_job(await person.import_dataset("Shared"))
    context = await new_context()
    for _ in range(3):
        page = await context.new_page()
        await page.goto(f"/training/jobs/{job['id']}")
        await expect(page.get_by_role("region", name="Progress")).to_contain_text("Queue time is free")
        async with asyncio.timeout(15):
            while await streams() != 1:
                await asyncio.sleep(0.1)


async def test_a_running_job_is_forecast_anew_on_the_page(page: Page, person: Person, trainer: Trainer) -> None:
    """After 20 measured steps the page says what was forecast and what its own speed says, with cost and limit ahead."""
    dataset_id = await person.import_dataset("Forecast anew", pairs=400)
    job = await person.create_job(dataset_id, base_model="llama-3.1-8b", max_cost_usd=0.2)
    await page.goto(f"/training/jobs/{job['id']}")
    progress, cost = page.get_by_role("region", name="Progress"), page.get_by_role("region", name="Cost")
    await expect(progress).to_contain_text("Queue time is free")
    lease = await trainer.take()
    await trainer.report(lease, step=1)
    # As if its steps took five times as long as forecast.
    await person.sql(
        "update lora_training_jobs set measured_since = measured_since - $2 * interval '1 second' where id = $1::uuid",
        job["id"],
        5 * 20 / job["total_steps"] * job["forecast"]["training_seconds"]["p50"],
    )
    await trainer.report(lease, step=21)
    await expect(progress).to_contain_text(re.compile(r"Was [\d.]+ (s|min|h), now [\d.,–]+ (s|min|h)"))
    again = (await person.ask("GET", f"/api/jobs/{job['id']}"))["reforecast"]
    await expect(progress).to_contain_text(again["note"])
    await expect(cost).to_contain_text(f"${again['cost']['p10']:.2f} – ${again['cost']['p90']:.2f}")
    await expect(page.get_by_role("list", name="Events, newest first")).to_contain_text(
        "New forecast from the measured speed"
    )
    assert again["limit"] == "cost_limit"
    await expect(progress).to_contain_text("It will reach its cost limit before its end.")


async def test_without_events_the_page_asks(page: Page, person: Person, trainer: Trainer) -> None:
    """Without a watch the page polls: it is at most 5 s behind."""
    # Without SharedWorker the page itself opens the watch, where a test can refuse it.
    await page.add_init_script("delete window.SharedWorker")
    await page.route("**/events", lambda route: route.abort())
    job = await person.create_job(await person.import_dataset("Asked"))
    await page.clock.install()
    await page.goto(f"/training/jobs/{job['id']}")
    await expect(page.get_by_role("region", name="Progress")).to_contain_text("Queue time is free")
    asks = re.compile(f"/api/jobs/{job['id']}$")
    # From an answer on, so that nothing is under way, and in the page's own time.
    async with page.expect_response(asks):
        await stop_the_clock(page)
        await page.clock.run_for(5000)
    lease = await trainer.take()
    await trainer.report(lease, step=15, loss=1.5)
    async with page.expect_request(asks):
        await page.clock.run_for(5000)
    await page.clock.resume()
    await expect(page.get_by_role("progressbar", name="Training progress")).to_have_attribute("aria-valuenow", "50")


async def test_a_watch_outlives_its_servers(page: Page, person: Person, trainer: Trainer) -> None:
    """The gateway and the Jobs server are killed on the way: the page goes on by itself and misses no event."""
    job = await person.create_job(await person.import_dataset("Outlived", pairs=400))
    await page.goto(f"/training/jobs/{job['id']}")
    lease = await trainer.take()
    for step in (15, 30):
        await trainer.report(lease, step, loss=1.0)
    events = page.get_by_role("list", name="Events, newest first")
    await expect(events).to_contain_text("Step 30, 10 %")
    for name, step in (("gateway", 60), ("jobs_service", 90)):
        child(person.up, name).kill()
        async with asyncio.timeout(20):
            while True:
                try:
                    await trainer.report(lease, step, loss=0.9)
                    break
                except Exception:  # the server is on its way back
                    await asyncio.sleep(0.1)
        await expect(events).to_contain_text(f"Step {step}, ", timeout=30_000)
    for step in (30, 60, 90):
        await expect(events.get_by_text(f"Step {step}, ")).to_have_count(1)
    await expect(page.get_by_role("progressbar", name="Training progress")).to_have_attribute("aria-valuenow", "30")


async def test_a_part_of_the_page_that_does_not_come_is_asked_for_again(
    page: Page, person: Person, trainer: Trainer
) -> None:
    """The gateway is away when the charts' own file is loaded: it comes once the gateway answers again."""
    looks: list[str] = []

    async def file(route: Route) -> None:
        await (route.continue_() if len(looks) == 2 else route.abort())

    async def health(route: Route) -> None:
        looks.append(route.request.url)
        await (route.continue_() if len(looks) == 2 else route.abort())

    await page.route("**/assets/charts-*.js", file)
    await page.route("**/healthz", health)
    job = await person.create_job(await person.import_dataset("Lost"))
    await trainer.report(await trainer.take(), step=10, loss=1.25)
    await page.goto(f"/training/jobs/{job['id']}")
    await expect(page.get_by_role("slider", name="Loss, by step")).to_have_attribute(
        "aria-valuetext", "1.25 at step 10"
    )
    assert len(looks) == 2


async def test_a_job_is_cancelled_after_asking(page: Page, person: Person, trainer: Trainer) -> None:
    """Cancel asks first, says what it means, and tells the trainer to stop."""
    job = await person.create_job(await person.import_dataset("Cancelled"))
    lease = await trainer.take()
    await trainer.report(lease, 10, loss=1.0)
    await page.goto(f"/training/jobs/{job['id']}")
    await page.get_by_role("button", name="Cancel job").click()
    dialog = page.get_by_role("dialog", name="Cancel this job?")
    await expect(dialog).to_contain_text("Its training so far is lost")
    await dialog.get_by_role("button", name="Go back").click()
    await expect(dialog).to_have_count(0)
    assert not (await trainer.report(lease, 11)).stop
    await page.get_by_role("button", name="Cancel job").click()
    await dialog.get_by_role("button", name="Cancel the job").click()
    await expect(page.get_by_role("region", name="Progress")).to_contain_text("You cancelled it.")
    await expect(page.get_by_role("button", name="Cancel job")).to_have_count(0)
    assert (await person.ask("GET", f"/api/jobs/{job['id']}"))["status"] == "cancelled"
    assert (await trainer.report(lease, 12)).stop


async def test_a_failed_job_is_tried_again(page: Page, person: Person, trainer: Trainer) -> None:
    """The page of a failed job says why and queues a new one from its frozen configuration, once for two clicks."""
    job = await person.create_job(await person.import_dataset("Failed"), max_duration_seconds=7200)
    await page.goto(f"/training/jobs/{job['id']}")
    await trainer.fail(await trainer.take(), "CUDA out of memory at step 3")
    await expect(page.get_by_role("alert").filter(has_text="CUDA out of memory at step 3")).to_be_visible()
    await page.get_by_role("button", name="Retry").dblclick()
    await expect(page).not_to_have_url(re.compile(job["id"]))
    await expect(page.get_by_role("region", name="Progress")).to_contain_text("Queue time is free")
    rows = await person.sql("select id from lora_training_jobs where user_id = $1::uuid", person.id)
    assert len(rows) == 2
    again = await person.ask("GET", f"/api/jobs/{page.url.rpartition('/')[2]}")
    assert (again["retried_from"], again["max_duration_seconds"]) == (job["id"], 7200)


async def test_the_list_is_live(page: Page, person: Person, trainer: Trainer) -> None:
    """A job's state and progress in the list follow its trainer."""
    await person.create_job(await person.import_dataset("Listed"))
    await page.goto("/training/jobs")
    row = page.get_by_role("row").filter(has_text="Listed")
    await expect(row).to_contain_text("Queued")
    lease = await trainer.take()
    await trainer.report(lease, step=15, loss=1.5)
    await expect(row).to_contain_text("Running")
    await expect(row.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "50")
    await trainer.complete(lease)
    await expect(row).to_contain_text("Completed")


async def test_limits_are_started_with(page: Page, person: Person) -> None:
    """The two limits are part of the job and of the address; one below the estimate is pointed out, nonsense explained."""
    dataset_id = await person.import_dataset("Limited")
    await page.goto(f"/training/configure?datasetId={dataset_id}")
    start = page.get_by_role("button", name="Start Training")
    await expect(start).to_be_enabled()
    cost, hours = page.get_by_label("Cost limit, $"), page.get_by_label("Duration limit, hours")
    await cost.fill("0.01")
    await expect(page.get_by_text("the job would be stopped before it completes")).to_be_visible()
    await cost.fill("-1")
    await expect(page.get_by_text("-1 is too low. Enter a number above 0.")).to_be_visible()
    await expect(start).to_be_disabled()
    await cost.fill("20")
    await hours.fill("1.5")
    await expect(page).to_have_url(re.compile("maxCost=20&maxHours=1.5"))
    await expect(start).to_be_enabled()
    await start.click()
    await expect(page.get_by_role("region", name="Cost")).to_contain_text("$20.00")
    await expect(page.get_by_role("region", name="Cost")).to_contain_text("1 h 30 min")
    (row,) = await person.sql("select * from lora_training_jobs where user_id = $1::uuid", person.id)
    assert float(row["max_cost_usd"]) == 20
