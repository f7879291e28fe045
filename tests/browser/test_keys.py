"""API keys: created on the page, shown once, used by a program, and revoked."""

from __future__ import annotations

import httpx
import pytest
from playwright.async_api import Page, Route, expect

from tests.browser.conftest import Calls, Person

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def call(person: Person, key: str, method: str = "GET") -> int:
    """Status of a program's call with a key."""
    async with httpx.AsyncClient(base_url=person.gateway, headers={"authorization": f"Bearer {key}"}) as program:
        return (await program.request(method, "/api/jobs", json=None if method == "GET" else {})).status_code


async def test_a_key_is_made_shown_once_used_and_revoked(page: Page, person: Person, calls: Calls) -> None:
    """From Account to a call and back: two clicks make one key, only its buttons close the dialog, revoking ends it."""
    await page.goto("/datasets")
    await page.get_by_role("button", name="Account").click()
    await page.get_by_role("menuitem", name="API keys").click()
    await expect(page.get_by_text("No API keys yet")).to_be_visible()
    await page.get_by_role("button", name="New API key").click()
    form = page.get_by_role("dialog", name="New API key")
    await expect(form.get_by_role("button", name="Create")).to_be_disabled()
    await form.get_by_label("Name").fill("Nightly run")
    await form.get_by_label("Read only").check()
    await form.get_by_label("Expires in").click()
    await page.get_by_role("option", name="7 days").click()
    await form.get_by_role("button", name="Create").dblclick()
    shown = page.get_by_role("dialog", name="Save this key")
    key = await shown.get_by_label("Key", exact=True).input_value()
    assert key.startswith("pk_")
    await page.mouse.click(5, 5)
    await page.keyboard.press("Escape")
    await expect(shown).to_be_visible()
    await shown.get_by_role("button", name="I have saved it").click()
    await expect(shown).to_have_count(0)
    assert len(calls.to("POST /api/keys")) == 1
    assert key not in await page.content()
    row = page.get_by_role("listitem").filter(has_text="Nightly run")
    await expect(row).to_contain_text("Read only")
    await expect(row).to_contain_text("never used")
    assert await call(person, key) == 200
    assert await call(person, key, "POST") == 403
    await page.reload()
    await expect(row).to_contain_text("last used")
    await row.get_by_role("button", name="Revoke Nightly run").click()
    await page.get_by_role("button", name="Revoke the key").click()
    await expect(page.get_by_text("No API keys yet")).to_be_visible()
    assert (await person.ask("GET", "/api/keys"))["api_keys"] == []


async def test_a_refused_key_keeps_what_was_entered(page: Page, person: Person) -> None:
    """At the limit the form says so and stays; with the network gone it says that, and nothing entered is lost."""
    for number in range(20):
        await person.ask("POST", "/api/keys", json={"name": f"Key {number}", "scopes": ["read"]})
    await page.goto("/keys")
    await expect(page.get_by_role("listitem")).to_have_count(20)
    await page.get_by_role("button", name="New API key").click()
    form = page.get_by_role("dialog", name="New API key")
    await form.get_by_label("Name").fill("One more")
    await form.get_by_role("button", name="Create").click()
    await expect(form.get_by_role("alert")).to_contain_text("20 API keys")

    async def fail(route: Route) -> None:
        await route.abort()

    await page.route("**/api/keys", fail)
    await form.get_by_role("button", name="Create").click()
    await expect(form.get_by_role("alert")).to_be_visible()
    await expect(form.get_by_label("Name")).to_have_value("One more")
