"""What a job leaves: its result's files, and its log."""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
import zipfile

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.conftest import NewContext, Person, Trainer
from tests.browser.test_everywhere import CONTRAST, EVERYTHING, axe, faults

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

FILES = {"adapter_model.safetensors": bytes(range(256)) * 5000, "adapter_config.json": b'{"r": 16}\n'}


async def saved(page: Page, button: Locator) -> tuple[str, bytes]:
    """Name and content of the file that a click saves."""
    async with page.expect_download() as waiting:
        await button.click()
    download = await waiting.value
    assert await download.failure() is None
    path = await download.path()
    return download.suggested_filename, await asyncio.to_thread(path.read_bytes)


async def test_a_result_is_downloaded_as_it_was_uploaded(page: Page, person: Person, trainer: Trainer) -> None:
    """A completed job lists its files; each, and all in one archive, are saved with the bytes that the trainer uploaded."""
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    dataset_id = await person.import_dataset("Résumés, checked", pairs=400)
    job = await person.create_job(dataset_id, base_model="mistral-7b")
    lease = await trainer.take()
    for step, eval_loss in ((10, 1.5), (20, 0.5312), (30, 0.75)):
        await trainer.report(lease, step, loss=1.0, eval_loss=eval_loss)
    await page.goto(f"/training/jobs/{job['id']}")
    await expect(page.get_by_role("region", name="Progress")).to_contain_text("Training")
    result = page.get_by_role("region", name="Result", exact=True)
    await expect(result).to_have_count(0)
    files = [await trainer.upload(lease, name, content) for name, content in FILES.items()]
    await trainer.complete(lease, files, step=20)
    await expect(result).to_contain_text("0.5312 at step 20")
    await expect(result).to_contain_text(f"Step 20 of {lease.total_steps:,}")
    await expect(result.get_by_role("list", name="Files").get_by_role("listitem")).to_have_count(2)
    await expect(result).to_contain_text("1.3 MB")
    await expect(result).to_contain_text(hashlib.sha256(FILES["adapter_config.json"]).hexdigest())
    for name, content in FILES.items():
        assert await saved(page, result.get_by_role("link", name=name)) == (name, content)
    name, archive = await saved(page, result.get_by_role("link", name="Download adapter.zip"))
    assert name == f"{job['id'][:8]}-adapter.zip"
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert {name: opened.read(name) for name in opened.namelist()} == FILES
    name, table = await saved(page, result.get_by_role("button", name="Metrics (CSV)"))
    assert name == f"metrics-{job['id']}.csv"
    header, *rows = table.decode().splitlines()
    assert (header, [row.split(",")[2] for row in rows]) == ("step,epoch,eval_loss,loss", ["1.5", "0.5312", "0.75"])
    code = result.get_by_role("region", name="Python (PEFT) code")
    await expect(code).to_contain_text('PeftModel.from_pretrained(base, "adapter")')
    await expect(code).to_contain_text('from_pretrained("mistralai/Mistral-7B-v0.3"')
    await result.get_by_role("tab", name="vLLM").click()
    await result.get_by_role("button", name="Copy as vLLM").click()
    await expect(page.get_by_text("Copied", exact=True)).to_be_visible()
    command = await page.evaluate("navigator.clipboard.readText()")
    assert "vllm serve mistralai/Mistral-7B-v0.3" in command
    assert "--lora-modules resumes-checked=./adapter" in command
    assert f"unzip {job['id'][:8]}-adapter.zip" in command


async def test_nothing_is_shown_as_a_result_where_there_is_none(page: Page, person: Person, trainer: Trainer) -> None:
    """A simulated job says that nothing was trained; one whose adapter is elsewhere says where; neither has a result."""
    dataset_id = await person.import_dataset("Without a result")
    for text, simulated, uri in (
        ("nothing was trained, so there is no adapter", True, ""),
        ("Completed. There are no files to download.", False, ""),
        ("The adapter is at s3://elsewhere/adapter", False, "s3://elsewhere/adapter"),
    ):
        job = await person.create_job(dataset_id)
        lease = await trainer.take()
        if simulated:
            await person.sql("update lora_training_jobs set simulated = true where id = $1::uuid", job["id"])
        await trainer.report(lease, 1, loss=1.0)
        await trainer.complete(lease, uri=uri)
        await page.goto(f"/training/jobs/{job['id']}")
        await expect(page.get_by_role("region", name="Progress")).to_contain_text(text)
        await expect(page.get_by_role("region", name="Result", exact=True)).to_have_count(0)
        await expect(page.get_by_text("adapter.zip")).to_have_count(0)


async def test_every_line_of_a_log_is_found_and_saved(page: Page, person: Person, trainer: Trainer) -> None:
    """A log apart from the events: its end first, then all of it, searched, copied and saved; lines too long for a page too."""
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    job = await person.create_job(await person.import_dataset("Logged", pairs=4000))
    lease = await trainer.take()
    lines: list[str] = []
    for step in range(1, 221):
        # A page of events has room for 2 MiB of lines: these twelve have more.
        new = (
            [f"{step}.{number} {'ä' * 1900}" for number in range(50)] if 60 <= step < 72 else [f"step {step}: loss 1.0"]
        )
        if step == 7:
            new = ["Loading checkpoint shards", "Found <b>2</b> Markers"]
        await trainer.report(lease, step, log_lines=new)
        lines += new
    await page.goto(f"/training/jobs/{job['id']}")
    logs = page.get_by_role("region", name="Logs", exact=True)
    box = logs.get_by_role("region", name="Log lines")
    await box.scroll_into_view_if_needed()
    await expect(box.get_by_text("step 220: loss 1.0")).to_be_in_viewport()
    await expect(page.get_by_role("list", name="Events, newest first")).not_to_contain_text("loss 1.0")
    await expect(box.get_by_text("step 8: loss 1.0")).to_have_count(0)
    # Further lines arrive at the end.
    await trainer.report(lease, 221, log_lines=["step 221: loss 1.0"])
    lines.append("step 221: loss 1.0")
    await expect(box.get_by_text("step 221: loss 1.0")).to_be_in_viewport()
    await logs.get_by_label("Search the log").fill("markers")
    await expect(logs.get_by_role("status")).to_have_text(f"1 of {len(lines)} lines match.")
    await expect(box.locator("p")).to_have_text(["Found <b>2</b> Markers"])
    await expect(box.locator("mark")).to_have_text("Markers")
    await logs.get_by_role("button", name="Copy").click()
    await expect(page.get_by_text("Log copied")).to_be_visible()
    assert (await page.evaluate("navigator.clipboard.readText()")).endswith(" Found <b>2</b> Markers\n")
    await logs.get_by_label("Search the log").fill("")
    name, content = await saved(page, logs.get_by_role("button", name="Download"))
    assert name == f"log-{job['id']}.txt"
    assert [line.partition(" ")[2] for line in content.decode().splitlines()] == lines
    assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z ", content.decode())
    while await logs.get_by_role("button", name="Show earlier lines").count():
        await logs.get_by_role("button", name="Show earlier lines").click()
    assert await box.locator("p").all_inner_texts() == lines


async def test_one_long_word_widens_nothing(new_context: NewContext, person: Person, trainer: Trainer) -> None:
    """A word of 2,000 letters in a log, an error and a name stays inside its box at every width; axe finds nothing."""
    context = await new_context(color_scheme="dark", reduced_motion="reduce")
    page = await context.new_page()
    word = "W" * 190
    job = await person.create_job(await person.import_dataset(word, pairs=400))
    lease = await trainer.take()
    await trainer.report(lease, 1, log_lines=[word * 10, f"{'x' * 1000} y"], loss=1.0, **{"w" * 60: 1.0})
    await trainer.fail(lease, word * 8)
    await page.goto(f"/training/jobs/{job['id']}")
    await expect(page.get_by_role("region", name="Log lines")).to_contain_text(word)
    await page.get_by_label("Search the log").fill("wWw")
    await expect(page.get_by_role("region", name="Log lines").locator("mark").first).to_be_visible()
    await page.evaluate(axe())
    for width in (320, 375, 768, 1024, 1440):
        await page.set_viewport_size({"width": width, "height": 812})
        # Charts follow a frame later.
        async with asyncio.timeout(10):
            while await page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                await asyncio.sleep(0.02)
        if width == 375:
            assert await faults(page, EVERYTHING) == []
            await page.emulate_media(color_scheme="light")
            await expect(page.locator("html.dark")).to_have_count(0)
            assert await faults(page, CONTRAST) == []
