"""A dataset before anything is started on it: its rows as a chat, figures, warnings and errors."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Person

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


def conversation(number: int, **more: Any) -> bytes:
    """A line with a conversation."""
    messages = [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": f"What is {number} plus {number}? {'Think. ' * (number % 40)}"},
        {"role": "assistant", "content": "Is that a question?", "weight": 0},
        {"role": "user", "content": "Yes."},
        {"role": "assistant", "content": f"It is {number + number}.", "reasoning_content": "Twice the number."},
    ]
    return orjson.dumps({"messages": messages, **more}) + b"\n"


async def upload(person: Person, content: bytes, name: str) -> dict[str, Any]:
    """Imports a file."""
    return dict(
        await person.ask(
            "POST",
            "/api/datasets",
            params={"name": name, "file_name": f"{name}.jsonl"},
            content=content,
            headers={"content-type": "application/jsonl"},
        )
    )


async def picture(page: Page, name: str) -> None:
    """Saves the page at three widths where `PIPELINE_TEST_PICTURES` names a folder; nothing may be wider than the window."""
    folder = os.environ.get("PIPELINE_TEST_PICTURES")
    for width in (375, 768, 1440):
        await page.set_viewport_size({"width": width, "height": 900})
        assert await page.evaluate("document.documentElement.scrollWidth") <= width, (name, width)
        if folder:
            await page.screenshot(path=Path(folder) / f"{name}-{width}.png", full_page=True)


async def test_rows_are_shown_as_they_are_trained_on(page: Page, person: Person) -> None:
    """A dataset shows its rows as a chat with what is trained on, pages through them, and jumps to a line with a warning."""
    lines = [conversation(number, **({"mood": "merry"} if number == 31 else {})) for number in range(1, 36)]
    await upload(person, b"".join(lines), "Sums")
    await page.goto("/datasets")
    await page.get_by_role("link", name="Warnings of Sums").click()
    await expect(page.get_by_role("heading", name="Sums", level=1)).to_be_visible()
    await expect(page.get_by_role("img", name=re.compile("Tokens per sample: median"))).to_be_visible()
    first = page.get_by_role("listitem", name="Row 1", exact=True)
    await expect(first.get_by_text("What is 1 plus 1?")).to_be_visible()
    await expect(first.get_by_text("Twice the number.")).to_be_visible()
    assert await first.get_by_text("Trained on", exact=True).count() == 1
    assert await first.get_by_text("Not trained on").count() == 1
    await picture(page, "dataset")
    await page.get_by_role("button", name="Next rows").click()
    await expect(page.get_by_role("listitem", name="Row 11", exact=True)).to_be_visible()
    await expect(page.get_by_text("11–20 of 35 rows")).to_be_visible()
    await page.get_by_role("button", name="Go to line 31").click()
    await expect(page.get_by_role("list", name="Rows").get_by_role("listitem").first).to_contain_text("31 plus 31")
    await page.get_by_label("Line of the file").fill("7")
    await page.get_by_role("button", name="Go to line", exact=True).click()
    await expect(page.get_by_text("What is 7 plus 7?")).to_be_visible()
    await page.get_by_role("link", name="Start Training").click()
    await expect(page.get_by_role("button", name="Start Training")).to_be_enabled()
    # Warnings are in view before anything is started.
    await expect(page.get_by_role("list", name="Warnings")).to_contain_text("mood")
    await picture(page, "configure-warnings")


async def test_errors_are_grouped_and_lead_to_their_rows(page: Page, person: Person) -> None:
    """A refused file lists each reason once with its count and the text around it, and shows the bad rows."""
    bad = b'{"messages": [{"role": "user", "content": NaN}]}\n'
    await upload(person, conversation(1) + bad * 12 + b'{"question": "Why?", "Answer": "So."}\n', "Broken")
    await page.goto("/datasets")
    await expect(page.get_by_text("not stored")).to_be_visible()
    await page.get_by_role("button", name="errors in Broken").click()
    reasons = page.get_by_role("dialog").get_by_role("listitem")
    await expect(reasons).to_have_count(2)
    await expect(reasons.first).to_contain_text("line 2, col 43")
    await expect(reasons.first).to_contain_text("NaN is not JSON")
    await expect(reasons.first).to_contain_text("12 times")
    await page.get_by_role("link", name="Show its rows").click()
    await page.get_by_role("button", name="Go to line 5", exact=True).click()
    row = page.get_by_role("list", name="Rows").get_by_role("listitem").first
    await expect(row).to_contain_text("line 5")
    await expect(row).to_contain_text("NaN is not JSON")
    await picture(page, "broken")


async def test_columns_are_mapped_at_upload(page: Page, person: Person) -> None:
    """Columns of a CSV with names of their own get their roles in the upload's form."""
    await page.goto("/datasets")
    await page.get_by_role("button", name="Upload dataset", exact=True).click()
    dialog = page.get_by_role("dialog")
    table = {"name": "fragen.csv", "mimeType": "text/csv", "buffer": b"Frage;Antwort\nWarum?;Darum.\n"}
    await dialog.get_by_label("File").set_input_files(files=[table])  # type: ignore[list-item]
    await dialog.get_by_text("Columns with other names").click()
    await dialog.get_by_label("Column mapping").fill("Frage:user, Antwort:assistant")
    await dialog.get_by_role("button", name="Upload").click()
    await expect(page.get_by_text("Dataset ready")).to_be_visible()
    await page.get_by_role("link", name="fragen", exact=True).click()
    await expect(page.get_by_text("Darum.")).to_be_visible()
    rows = await person.sql("select format, training_ready from lora_datasets where user_id = $1::uuid", person.id)
    assert [tuple(row) for row in rows] == [("mapped", True)]
