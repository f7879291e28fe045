"""Browsers as people have them: without https, with a wrong clock, translated, in many windows, with a server that hangs."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import NewContext, Person, Trainer
from tests.browser.test_everywhere import axe
from tests.deploy.processes import child, patience

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

HOUR = 3600
STALE_SECONDS = 6.0
# What browsers' translators do: each text is replaced by elements with its translation, later ones too.
TRANSLATOR = """
const kept = new Set(["SCRIPT", "STYLE", "TEXTAREA", "FONT"]);
function translate(node) {
  if (node.nodeType === Node.TEXT_NODE) {
    const parent = node.parentElement;
    if (!parent || kept.has(parent.tagName) || parent.closest("[translate=no], svg") || !/[A-Za-z0-9]/.test(node.data)) return;
    const outer = document.createElement("font");
    const inner = document.createElement("font");
    inner.textContent = "«" + node.data + "»";
    outer.append(inner);
    if (window.translatedTexts++ % 2) node.replaceWith(outer);
    else { parent.insertBefore(outer, node); node.remove(); }
  } else if (node.nodeType === Node.ELEMENT_NODE && !kept.has(node.tagName)) [...node.childNodes].forEach(translate);
}
window.translatedTexts = 0;
document.addEventListener("DOMContentLoaded", () => {
  new MutationObserver((records) => records.forEach(({ addedNodes }) => addedNodes.forEach(translate)))
    .observe(document.body, { childList: true, subtree: true });
});
"""


async def test_the_page_works_by_host_name_without_https(
    new_context: NewContext, person: Person, trainer: Trainer
) -> None:
    """Case 60: by a host name over plain http a job is started and seen, a link is copied, and a webhook's secret is shown."""
    dataset_id = await person.import_dataset("Plain")
    page = await (await new_context(host="gpu-box.lan")).new_page()
    await page.goto(f"/training/configure?datasetId={dataset_id}")
    assert await page.evaluate("[isSecureContext, typeof crypto.randomUUID, typeof navigator.clipboard]") == [
        False,
        "undefined",
        "undefined",
    ]
    await page.get_by_role("button", name="Copy link").click()
    await expect(page.get_by_text("Link copied")).to_be_visible()
    start = page.get_by_role("button", name="Start Training")
    await expect(start).to_be_enabled()
    await start.dblclick()
    await expect(page.get_by_role("region", name="Progress")).to_contain_text("Queue time is free")
    await expect(page.get_by_text("Training job queued")).to_be_visible()
    rows = await person.sql("select id from lora_training_jobs where user_id = $1::uuid", person.id)
    assert [str(row["id"]) for row in rows] == [page.url.rpartition("/")[2]]
    lease = await trainer.take()
    await trainer.report(lease, 15, loss=1.0)
    await expect(page.get_by_role("progressbar", name="Training progress")).to_have_attribute("aria-valuenow", "50")
    await page.goto("/webhooks")
    await page.get_by_role("button", name="New webhook").click()
    await page.get_by_label("URL").fill("http://127.0.0.1:9/hook")
    await page.get_by_role("dialog").get_by_role("button", name="Create").dblclick()
    secret = page.get_by_role("dialog", name="Save this secret").get_by_label("Secret")
    await expect(secret).to_have_value(re.compile("^whsec_"))
    await page.get_by_role("dialog").get_by_role("button", name="Copy").click()
    await expect(page.get_by_text("Secret copied")).to_be_visible()
    assert len((await person.ask("GET", "/api/webhooks"))["webhooks"]) == 1


@pytest.mark.parametrize("hours", [-26, -1, 1, 26])
async def test_a_wrong_clock_changes_no_time(page: Page, person: Person, hours: int) -> None:
    """Case 64: with the browser's clock hours off, what was just made is recent, and a price holds to a day."""
    dataset_id = await person.import_dataset("Timely")
    job = await person.create_job(dataset_id)
    await page.clock.set_system_time(time.time() + hours * HOUR)
    recent = re.compile("just now|seconds? ago")
    await page.goto("/datasets")
    await expect(page.get_by_text(recent).first).to_be_visible()
    await page.goto("/training/jobs")
    await expect(page.get_by_role("row").filter(has_text="Timely")).to_contain_text(recent)
    await page.goto(f"/training/jobs/{job['id']}")
    await expect(page.get_by_role("list", name="Events, newest first")).to_contain_text(recent)
    await expect(page.get_by_text(re.compile("Out of date|interrupted"))).to_have_count(0)
    for wrong in ("hour ago", "hours ago", "yesterday", "tomorrow", "in 1 hour", "in 59 minutes"):
        await expect(page.get_by_text(wrong)).to_have_count(0)
    await page.goto(f"/training/configure?datasetId={dataset_id}&model=llama-3.1-8b")
    await page.get_by_role("button", name="Lock this price").click()
    await expect(page.get_by_text(re.compile(r"until \w{3} \d+, 2\d{3}, \d+:\d\d [AP]M"))).to_be_visible()


async def test_a_translated_page_goes_on(new_context: NewContext, person: Person, trainer: Trainer) -> None:
    """A page whose texts a translator replaced neither breaks nor shows old values: form, start, progress, log, lists."""
    context = await new_context()
    await context.add_init_script(TRANSLATOR)
    page = await context.new_page()
    dataset_id = await person.import_dataset("Translated", pairs=400)
    await page.goto(f"/training/configure?datasetId={dataset_id}")
    start = page.get_by_role("button", name="«Start Training»")
    await expect(start).to_be_enabled()
    card = page.get_by_label("Estimate")
    for name, rate in (("NVIDIA H100", "$8.40/h"), ("NVIDIA A100 40GB", "$5.60/h"), ("NVIDIA H100", "$8.40/h")):
        await page.get_by_role("radio", name=name).first.click()
        await expect(card).to_contain_text(rate)
        await expect(start).to_be_enabled()
    await page.get_by_label("Cost limit, $").fill("-1")
    await expect(page.get_by_text("-1 is too low")).to_be_visible()
    await page.get_by_label("Cost limit, $").fill("")
    await expect(page.get_by_text("-1 is too low")).to_have_count(0)
    await start.click()
    progress = page.get_by_role("region", name="Progress")
    await expect(progress).to_contain_text("Queue time is free")
    lease = await trainer.take()
    for step in (30, 150, 225):
        await trainer.report(lease, step, loss=1.0)
        await expect(progress).to_contain_text(re.compile(f"{step}[«»]* of [«»]*300"))
        await expect(page.get_by_role("region", name="Log lines")).to_contain_text(f"step {step}")
        assert await progress.get_by_text(re.compile("of .*300")).count() == 1
    await page.get_by_role("button", name="Cancel job").click()
    await page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
    await expect(progress).to_contain_text("You cancelled it.")
    await expect(progress).not_to_contain_text("left.")
    for link in ("Jobs", "Datasets", "Jobs"):
        await page.get_by_role("navigation", name="Main").get_by_role("link", name=link).click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text(re.compile(link, re.IGNORECASE))
    await page.get_by_role("button", name="Failed").click()
    await expect(page.get_by_text("No failed job")).to_be_visible()
    await page.get_by_role("button", name="Show all jobs").click()
    await expect(page.get_by_role("row").filter(has_text="Translated")).to_contain_text("Cancelled")
    assert await page.evaluate("window.translatedTexts") > 100


@contextmanager
def frozen(person: Person, name: str) -> Iterator[None]:
    """A server that hangs while the body runs: it accepts connections and answers nothing."""
    process = child(person.up, name)
    family = [process, *process.children(recursive=True)]
    for each in family:
        each.suspend()
    try:
        yield
    finally:
        for each in family:
            each.resume()


async def test_a_frozen_gateway_is_noticed(new_context: NewContext, person: Person, trainer: Trainer) -> None:
    """Where the gateway hangs, a running job's page says within 6 s that it is out of date, and since when, until it is not."""
    job = await person.create_job(await person.import_dataset("Frozen"))
    lease = await trainer.take()
    await trainer.report(lease, 5, loss=1.0)
    page = await (await new_context()).new_page()
    await page.goto(f"/training/jobs/{job['id']}")
    bar = page.get_by_role("progressbar", name="Training progress")
    await expect(bar).to_have_attribute("aria-valuenow", re.compile("^1[67]$"))
    notice = page.get_by_text("Out of date: the server does not answer.")
    await expect(notice).to_have_count(0)
    with frozen(person, "gateway"):
        await expect(notice).to_be_visible(timeout=patience(STALE_SECONDS) * 1000)
        await expect(page.get_by_text(re.compile(r"Last update \d+:\d\d:\d\d [AP]M\."))).to_be_visible()
        await expect(bar).to_be_visible()
    await expect(notice).to_have_count(0)
    await trainer.report(lease, 15, loss=1.0)
    await expect(bar).to_have_attribute("aria-valuenow", "50")


async def test_eight_windows_share_one_stream(new_context: NewContext, person: Person, trainer: Trainer) -> None:
    """Eight windows follow a job at once over one event stream, and the connections left load the rest."""
    job = await person.create_job(await person.import_dataset("Shared", pairs=400))
    lease = await trainer.take()
    context = await new_context()
    pages = [await context.new_page() for _ in range(8)]
    for page in pages:
        await page.goto(f"/training/jobs/{job['id']}")
    await trainer.report(lease, 15, loss=1.0)
    for step in (30, 150):
        await trainer.report(lease, step, loss=1.0)
        for page in pages:
            await expect(page.get_by_role("list", name="Events, newest first")).to_contain_text(f"Step {step}, ")
    await pages[0].close()
    await trainer.report(lease, 225, loss=1.0)
    await expect(pages[7].get_by_role("list", name="Events, newest first")).to_contain_text("Step 225, ")
    log = person.up.output.parent / "logs" / "gateway.log"
    assert _streams(log.read_text(), person) == 0
    await context.close()
    # A stream is logged when it ends.
    async with asyncio.timeout(patience(10)):
        while not (streams := _streams(log.read_text(), person)):
            await asyncio.sleep(0.05)
    assert streams == 1


def _streams(log: str, person: Person) -> int:
    return len([line for line in log.splitlines() if "path=/api/jobs/events" in line and person.id in line])


async def test_the_documentation_looks_like_the_page(new_context: NewContext) -> None:
    """`/api/docs` has the page's theme, also when it changes in another window, a way back, and no critical fault for axe."""
    context = await new_context(color_scheme="light")
    page, other = await context.new_page(), await context.new_page()
    await page.goto("/datasets")
    await page.evaluate("localStorage.setItem('pipeline.theme', 'dark')")
    await page.goto("/api/docs")
    await expect(page.get_by_text("/api/jobs/estimate")).to_be_visible()
    await expect(page.locator("html.dark-mode")).to_have_count(1)
    await other.goto("/datasets")
    await other.evaluate("localStorage.setItem('pipeline.theme', 'light')")
    await expect(page.locator("html.dark-mode")).to_have_count(0)
    await other.evaluate("localStorage.removeItem('pipeline.theme')")
    await page.emulate_media(color_scheme="dark")
    await expect(page.locator("html.dark-mode")).to_have_count(1)
    await page.get_by_text("/api/jobs/estimate").click()
    await expect(page.get_by_role("button", name="Try it out")).to_be_visible()
    await page.evaluate(axe())
    critical = await page.evaluate(
        """async () => (await axe.run(document)).violations.filter((each) => each.impact === "critical")
             .flatMap((each) => each.nodes.map((node) => each.id + " " + node.html.slice(0, 200)))"""
    )
    assert critical == []
    await page.get_by_role("link", name="Back to Pipeline").click()
    await expect(page.get_by_role("heading", name="Datasets", exact=True)).to_be_visible()
