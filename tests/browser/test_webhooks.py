"""Webhooks: made, tried, watched, sent again, changed and deleted on the page; a real receiver gets what is sent."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import orjson
import pytest
import pytest_asyncio
from playwright.async_api import Page, Route, expect
from standardwebhooks import Webhook as Verifier

from tests.browser.conftest import Calls, Person
from tests.jobs_service.webhooks.receiver import Receiver, answer, receiver

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(loop_scope="session")
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver that answers 200."""
    async with receiver() as made:
        yield made


async def create(page: Page, url: str, name: str) -> str:
    """Makes a webhook on the page and returns its secret."""
    await page.get_by_role("button", name="New webhook").click()
    form = page.get_by_role("dialog", name="New webhook")
    await form.get_by_label("URL").fill(url)
    await form.get_by_label("Name").fill(name)
    await form.get_by_role("button", name="Create").dblclick()
    return await keep(page)


async def keep(page: Page) -> str:
    """Reads the secret that is shown, and closes the dialog by its button."""
    shown = page.get_by_role("dialog", name="Save this secret")
    secret = await shown.get_by_label("Secret").input_value()
    await page.mouse.click(5, 5)
    await expect(shown).to_be_visible()
    await shown.get_by_role("button", name="I have saved it").click()
    await expect(shown).to_have_count(0)
    return secret


async def test_a_webhook_is_made_once_and_its_secret_shown_once(
    page: Page, person: Person, calls: Calls, receiving: Receiver
) -> None:
    """Two clicks make one webhook; its secret is shown once and signs what arrives; a new one takes its place."""
    await page.goto("/datasets")
    await page.get_by_role("button", name="Account").click()
    await page.get_by_role("menuitem", name="Webhooks").click()
    await expect(page.get_by_text("No webhooks yet")).to_be_visible()
    secret = await create(page, receiving.url, "Mine")
    assert len(calls.to("POST /api/webhooks")) == 1
    assert len((await person.ask("GET", "/api/webhooks"))["webhooks"]) == 1
    mine = page.get_by_role("article", name="Mine")
    await expect(mine).to_contain_text("All events")
    await mine.get_by_role("button", name="Send a test").dblclick()
    sent = mine.get_by_role("list", name="Deliveries to Mine").get_by_role("listitem").filter(has_text="Test")
    await expect(sent).to_have_count(1)
    await expect(sent).to_contain_text("Delivered")
    (request,) = receiving.received
    assert Verifier(secret).verify(request.body, request.headers) == orjson.loads(request.body)
    assert secret not in await page.content()
    await mine.get_by_role("button", name="New secret").click()
    await page.get_by_role("button", name="Create a new secret").click()
    other = await keep(page)
    assert other != secret
    await expect(mine).to_contain_text("the old secret is valid until")
    await sent.get_by_role("button", name="Resend: Test").click()
    async with asyncio.timeout(10):
        while len(receiving.received) < 2:
            await asyncio.sleep(0.02)
    again = receiving.received[1]
    assert again.message_id == request.message_id
    assert Verifier(other).verify(again.body, again.headers) == orjson.loads(again.body)


async def test_a_lost_answer_makes_no_second_webhook(page: Page, person: Person, receiving: Receiver) -> None:
    """The answer is lost, the form stays as it is, and trying again finds the webhook that was made."""

    async def lose_the_answer(route: Route) -> None:
        if route.request.method == "POST":
            await route.fetch()
            await route.abort()
        else:
            await route.continue_()

    await page.goto("/webhooks")
    await page.route("**/api/webhooks", lose_the_answer)
    await page.get_by_role("button", name="New webhook").click()
    form = page.get_by_role("dialog", name="New webhook")
    await form.get_by_label("URL").fill(receiving.url)
    await form.get_by_role("button", name="Create").click()
    await expect(form.get_by_role("alert")).to_contain_text("Nothing you entered is lost")
    await page.unroute_all(behavior="wait")
    await form.get_by_role("button", name="Create").click()
    await expect(page.get_by_text("The webhook already exists")).to_be_visible()
    assert len((await person.ask("GET", "/api/webhooks"))["webhooks"]) == 1


async def test_attempts_are_shown_and_sent_again(page: Page, person: Person, receiving: Receiver) -> None:
    """A delivery shows each attempt with its status and answer, waits for the next, and can be sent again at once."""
    receiving.answers = [answer(503, b"not now")]
    hook = (await person.ask("POST", "/api/webhooks", json={"url": receiving.url, "description": "Slow"}))["webhook"]
    await person.create_job(await person.import_dataset("Told"))
    await page.goto("/webhooks")
    slow = page.get_by_role("article", name="Slow")
    await slow.get_by_role("button", name="Deliveries").click()
    sent = slow.get_by_role("list", name="Deliveries to Slow").get_by_role("listitem").filter(has_text="Job queued")
    await expect(sent).to_contain_text("Pending")
    await sent.get_by_text("Job queued", exact=True).click()
    attempts = sent.get_by_role("list", name="Attempts").get_by_role("listitem")
    await expect(attempts).to_have_count(1)
    await expect(attempts.first).to_contain_text(re.compile(r"HTTP 503 · attempt 1 · .* ms"))
    await expect(attempts.first.get_by_role("region", name="Response")).to_have_text("not now")
    await expect(sent.get_by_role("region", name="Request body")).to_contain_text("job_queued")
    await expect(slow).to_contain_text("Failing")
    await sent.get_by_role("button", name="Resend: Job queued").click()
    await expect(sent).to_contain_text("Delivered")
    await expect(attempts.first).to_contain_text("HTTP 200 · attempt 2")
    await expect(attempts).to_have_count(2)
    assert [
        each["status"] for each in (await person.ask("GET", f"/api/webhooks/{hook['id']}/deliveries"))["deliveries"]
    ] == ["delivered"]


async def test_a_webhook_is_changed_and_deleted(page: Page, person: Person, receiving: Receiver) -> None:
    """What is sent can be narrowed, all of it switched off and the webhook deleted; a refused address says why and stays."""
    await page.goto("/webhooks")
    await create(page, receiving.url, "Brief")
    brief = page.get_by_role("article", name="Brief")
    await brief.get_by_role("button", name="Edit").click()
    form = page.get_by_role("dialog", name="Edit the webhook")
    await form.get_by_label("URL").fill("https://user@example.com/#part")
    await form.get_by_role("button", name="Save").click()
    await expect(form.get_by_role("alert")).to_contain_text("no user name, no fragment")
    await expect(form.get_by_label("URL")).to_have_value("https://user@example.com/#part")
    await form.get_by_label("URL").fill(receiving.url)
    await form.get_by_label("Selected events").check()
    await expect(form.get_by_role("button", name="Save")).to_be_disabled()
    await form.get_by_label("Job failed").check()
    await form.get_by_label("Enabled").uncheck()
    await form.get_by_role("button", name="Save").click()
    await expect(form).to_have_count(0)
    await expect(brief).to_contain_text("Off")
    await expect(brief).to_contain_text("Job failed")
    await expect(brief.get_by_role("button", name="Send a test")).to_be_disabled()
    (webhook,) = (await person.ask("GET", "/api/webhooks"))["webhooks"]
    assert (webhook["enabled"], webhook["event_types"]) == (False, ["job_failed"])
    await brief.get_by_role("button", name="Delete").click()
    await (
        page.get_by_role("dialog", name="Delete this webhook?").get_by_role("button", name="Delete the webhook").click()
    )
    await expect(page.get_by_text("No webhooks yet")).to_be_visible()
    assert (await person.ask("GET", "/api/webhooks"))["webhooks"] == []
