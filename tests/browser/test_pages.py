"""The other pages: datasets, jobs, one job, the door, notifications; and what is true of all of them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from playwright.async_api import Page, Route, expect

from tests.browser.conftest import Calls, NewContext, Person, Trainer, jsonl, stop_the_clock

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def test_datasets_can_be_trained_on_when_they_are_ready(page: Page, person: Person) -> None:
    """The list shows status, pairs, tokens and size, and "Start Training" on the ready ones only."""
    await person.import_dataset("Ready one", pairs=1234)
    broken = await person.import_dataset("Still checking")
    await person.sql(
        "update lora_datasets set status = 'validating', training_ready = false where id = $1::uuid", broken
    )
    (row,) = await person.sql("select * from lora_datasets where user_id = $1::uuid and status = 'ready'", person.id)
    await page.clock.install()
    await page.goto("/datasets")
    ready = page.get_by_role("row").filter(has_text="Ready one")
    await expect(ready).to_contain_text("Ready")
    await expect(ready).to_contain_text("1,234")
    await expect(ready.get_by_title(f"{row['total_tokens']:,}")).to_be_visible()
    await expect(ready).to_contain_text(f"{row['file_size'] / 1000:.1f} KB")
    await expect(ready.get_by_role("link", name="Start Training on Ready one")).to_be_visible()
    checking = page.get_by_role("row").filter(has_text="Still checking")
    await expect(checking).to_contain_text("Validating")
    await expect(checking.get_by_role("link", name="Start Training on Still checking")).to_have_count(0)
    await person.sql("update lora_datasets set status = 'ready', training_ready = true where id = $1::uuid", broken)
    await page.clock.run_for(5000)
    await expect(checking.get_by_role("link", name="Start Training on Still checking")).to_be_visible()


async def test_datasets_can_be_searched(page: Page, person: Person, calls: Calls) -> None:
    """Typing narrows the list, asks once for each pause, and the address remembers it."""
    for name in ("Apples", "Pears"):
        await person.import_dataset(name)
    await page.clock.install()
    await page.goto("/datasets")
    await expect(page.get_by_text("Pears", exact=True)).to_be_visible()
    count = len(calls.to("GET /api/datasets"))
    await stop_the_clock(page)
    for letter in "appl":
        await page.get_by_label("Search datasets by name").press(letter)
        await page.clock.run_for(200)
    assert len(calls.to("GET /api/datasets")) == count
    await page.clock.resume()
    await expect(page.get_by_text("Pears", exact=True)).to_have_count(0)
    await expect(page.get_by_text("Apples", exact=True)).to_be_visible()
    await expect(page).to_have_url(re.compile("search=appl$"))
    assert len(calls.to("GET /api/datasets")) == count + 1
    await page.reload()
    await expect(page.get_by_label("Search datasets by name")).to_have_value("appl")
    await page.get_by_label("Search datasets by name").fill("nothing like it")
    await page.get_by_role("button", name="Show all datasets").click()
    await expect(page.get_by_text("Pears", exact=True)).to_be_visible()


async def test_a_dataset_is_deleted_after_asking(page: Page, person: Person) -> None:
    """Deleting asks first; a dataset that a job waits for stays and says why; otherwise it is gone."""
    dataset_id = await person.import_dataset("Unwanted")
    job = await person.create_job(dataset_id)
    await page.goto("/datasets")
    dialog = page.get_by_role("dialog", name="Delete “Unwanted”?")
    await page.get_by_role("button", name="Delete Unwanted").click()
    await dialog.get_by_role("button", name="Go back").click()
    await expect(dialog).to_have_count(0)
    await page.get_by_role("button", name="Delete Unwanted").click()
    await dialog.get_by_role("button", name="Delete the dataset").click()
    await expect(page.get_by_text("Not deleted: ")).to_be_visible()
    await person.ask("POST", f"/api/jobs/{job['id']}/cancel")
    await page.get_by_role("button", name="Delete Unwanted").click()
    await dialog.get_by_role("button", name="Delete the dataset").click()
    await expect(page.get_by_text("No datasets yet")).to_be_visible()
    await page.goto(f"/training/jobs/{job['id']}")
    await expect(page.get_by_role("heading", name="Unwanted", level=1)).to_be_visible()


async def test_a_dataset_is_uploaded_with_progress(page: Page, person: Person) -> None:
    """The button takes a file, the bar says how much has gone out, and the dataset is there, ready to train on."""
    await page.goto("/datasets")
    await expect(page.get_by_text("No datasets yet")).to_be_visible()
    await page.get_by_role("button", name="Upload dataset", exact=True).click()
    dialog = page.get_by_role("dialog", name="Upload a dataset")
    await expect(dialog.get_by_text("Choose a file first.")).to_be_visible()
    content = jsonl(20_000)
    await dialog.get_by_label("File").set_input_files(
        {"name": "sums.jsonl", "mimeType": "application/jsonl", "buffer": content}
    )
    await expect(dialog.get_by_label("Name")).to_have_value("sums")
    await expect(dialog.get_by_text("Choose a file first.")).to_have_count(0)
    await dialog.get_by_label("Name").fill("")
    await expect(dialog.get_by_role("button", name="Upload")).to_have_accessible_description("Enter a name.")
    await dialog.get_by_label("Name").fill("Sums up")
    session = await page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": len(content) // 2}
    await session.send("Network.emulateNetworkConditions", slow)
    await dialog.get_by_role("button", name="Upload").click()
    await expect(dialog.get_by_role("progressbar", name="Upload")).to_have_attribute(
        "aria-valuenow", re.compile("^[1-9][0-9]?$")
    )
    await expect(dialog.get_by_text(re.compile(r"^[1-9]\d? % sent"))).to_be_visible()
    # Neither Escape nor a click beside it drops an upload.
    await page.keyboard.press("Escape")
    await page.mouse.click(5, 5)
    await expect(dialog.get_by_role("button", name="Stop the upload")).to_be_visible()
    await session.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})
    await expect(page.get_by_text("Dataset ready")).to_be_visible(timeout=30_000)
    await page.get_by_role("link", name="Start Training on Sums up").click()
    await expect(page.get_by_role("button", name="Start Training")).to_be_enabled()
    (row,) = await person.sql("select * from lora_datasets where user_id = $1::uuid", person.id)
    assert (row["name"], row["file_name"], row["total_training_pairs"]) == ("Sums up", "sums.jsonl", 20_000)


async def test_bad_lines_are_shown_line_by_line(page: Page) -> None:
    """A dropped file with bad lines makes no dataset to train on: each line is named with its reason, here and later."""
    await page.goto("/datasets")
    await expect(page.get_by_text("No datasets yet")).to_be_visible()
    await page.evaluate(
        """() => {
          const data = new DataTransfer();
          data.items.add(new File(['{"messages": [{"role": "user"'], "bad.jsonl"));
          const target = document.querySelector("#content > div");
          for (const type of ["dragenter", "dragover", "drop"])
            target.dispatchEvent(new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer: data }));
        }"""
    )
    await page.get_by_role("dialog").get_by_role("button", name="Upload").click()
    dialog = page.get_by_role("dialog", name="This file has bad rows")
    await expect(dialog).to_contain_text("1 row of “bad” cannot be trained on, so the file was not stored.")
    await expect(dialog.get_by_role("listitem").first).to_contain_text("line 1")
    reason = (await dialog.get_by_role("listitem").first.text_content()) or ""
    await dialog.get_by_role("button", name="Close").last.click()
    await page.get_by_role("button", name="errors in bad").click()
    later = page.get_by_role("dialog", name="Errors in “bad”")
    await expect(later.get_by_role("listitem").first).to_have_text(reason)
    await later.press("Escape")
    await expect(later).to_have_count(0)


async def test_a_corrected_file_is_uploaded_after_a_refused_one(page: Page) -> None:
    """After a refusal the old file is not sent again: the corrected one is chosen, and its name is the dataset's."""
    await page.goto("/datasets")
    await page.get_by_role("button", name="Upload dataset", exact=True).click()
    dialog = page.get_by_role("dialog")
    file = {"mimeType": "application/jsonl", "name": "first.jsonl"}
    await dialog.get_by_label("File", exact=True).set_input_files({**file, "buffer": jsonl(3) + b"{\n"})
    await dialog.get_by_role("button", name="Upload", exact=True).click()
    await dialog.get_by_role("button", name="Choose the corrected file").click()
    await expect(dialog.get_by_role("button", name="Upload", exact=True)).to_be_disabled()
    await expect(dialog.get_by_text("Choose a file first.")).to_be_visible()
    await dialog.get_by_label("File", exact=True).set_input_files({**file, "name": "second.jsonl", "buffer": jsonl(3)})
    await dialog.get_by_role("button", name="Upload", exact=True).click()
    await expect(page.get_by_role("link", name="second", exact=True)).to_be_visible()


@pytest.mark.parametrize("width", [375, 768, 1440])
async def test_names_of_datasets_keep_their_room(new_context: NewContext, person: Person, width: int) -> None:
    """At every width the name of a dataset has at least 200 px, and nothing scrolls sideways."""
    await person.import_dataset("A name of some length " * 8)
    page = await (await new_context(viewport={"width": width, "height": 900})).new_page()
    await page.goto("/datasets")
    box = await page.get_by_role("link", name="A name of some length").first.locator("..").bounding_box()
    assert box is not None
    assert box["width"] >= 200
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def test_jobs_are_listed_by_status_and_page(page: Page, person: Person, trainer: Trainer) -> None:
    """Newest first, ten a page, narrowed by status; the address remembers both, and Back leads back."""
    dataset_id = await person.import_dataset("Many")
    await asyncio.gather(*(person.create_job(dataset_id) for _ in range(12)))
    await trainer.fail(await trainer.take(), "Out of memory at step 12")
    await page.goto("/training/jobs")
    rows = page.get_by_role("table", name="Jobs").get_by_role("link")
    await expect(rows).to_have_count(10)
    await expect(page.get_by_text("1–10 of 12 jobs")).to_be_visible()
    await page.get_by_role("button", name="Next page").click()
    await expect(rows).to_have_count(2)
    await expect(page).to_have_url(re.compile(r"\?page=2$"))
    await page.get_by_role("button", name="Failed 1").click()
    await expect(rows).to_have_count(1)
    await expect(page).to_have_url(re.compile(r"\?status=failed$"))
    await page.get_by_role("button", name="Cancelled 0").click()
    await expect(page.get_by_text("No cancelled job")).to_be_visible()
    await page.go_back()
    await expect(rows).to_have_count(1)
    await rows.first.click()
    await expect(page.get_by_role("alert").filter(has_text="Out of memory at step 12")).to_be_visible()


async def test_creating_a_job_refreshes_the_list(page: Page, person: Person) -> None:
    """A job started on one page is in the list at once when the person goes there."""
    dataset_id = await person.import_dataset("Fresh")
    await page.goto("/training/jobs")
    await expect(page.get_by_text("No jobs yet")).to_be_visible()
    await page.get_by_role("link", name="Choose a dataset").click()
    await page.get_by_role("link", name="Start Training on Fresh").click()
    await page.get_by_role("button", name="Start Training").click()
    await expect(page.get_by_role("heading", name="Fresh", level=1)).to_be_visible()
    await page.get_by_role("navigation", name="Main").get_by_role("link", name="Jobs").click()
    await expect(page.get_by_role("table", name="Jobs").get_by_role("link", name="Fresh")).to_be_visible()
    assert dataset_id


async def test_a_job_page_has_everything_and_can_be_taken_further(page: Page, person: Person) -> None:
    """The frozen configuration and the estimate beside the cost; "Duplicate and edit" fills the form; curl makes a job."""
    dataset_id = await person.import_dataset("Kept")
    odd = {"learning_rate": 7.5e-5, "batch_size": 3, "epochs": 2, "rank": 12, "dropout": 0.25}
    job = await person.create_job(dataset_id, hyperparameters=odd, preset_id="custom")
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.goto(f"/training/jobs/{job['id']}")
    region = page.get_by_role("region", name="Configuration")
    for name, value in {
        "Preset": "Custom",
        "GPUs": "2 × A100-80GB",
        "Learning rate": "7.5e-5",
        "Batch size": "3",
        "Epochs": "2",
        "LoRA rank": "12",
        "LoRA alpha": "default",
        "Dropout": "0.25",
    }.items():
        fact = region.locator("dl > div").filter(has=page.get_by_text(name, exact=True))
        await expect(fact.locator("dd")).to_have_text(value)
    await expect(page.get_by_role("region", name="Cost")).to_contain_text(f"${job['estimated_total_cost']:.2f}")
    await page.get_by_role("button", name="API code").click()
    await page.get_by_role("tab", name="curl").click()
    await page.get_by_role("button", name="Copy as curl").click()
    command = await page.evaluate("navigator.clipboard.readText()")
    made = await person.ask("POST", "/api/keys", json={"name": "curl", "scopes": ["jobs"]})
    process = await asyncio.create_subprocess_shell(
        f"export PIPELINE_API_KEY={made['key']}; {command}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    output, _ = await process.communicate()
    assert b'"success":true' in output, (command, output)
    assert len(await person.sql("select 1 from lora_training_jobs where user_id = $1::uuid", person.id)) == 2
    await page.keyboard.press("Escape")
    await page.get_by_role("link", name="Duplicate and edit").click()
    await expect(page.get_by_role("textbox", name="LoRA rank")).to_have_value("12")
    await expect(page.get_by_role("textbox", name="Epochs")).to_have_value("2")
    await expect(page.get_by_role("button", name="Start Training")).to_be_enabled()
    await page.get_by_text("Alpha and dropout").click()
    await expect(page.get_by_role("textbox", name="LoRA alpha")).to_have_value("")


async def test_a_job_that_is_not_there_is_told_apart_from_a_fault(page: Page, person: Person) -> None:
    """A foreign or made-up id says so and leads to the jobs; so does an address that is no page."""
    other = Person(person.up)
    job = await other.create_job(await other.import_dataset())
    for path in (f"/training/jobs/{job['id']}", "/training/jobs/no-id"):
        await page.goto(path)
        await expect(page.get_by_text("Job not found")).to_be_visible()
    await page.goto("/nothing/here")
    await expect(page.get_by_text("Page not found")).to_be_visible()


async def test_the_door_leads_back(new_context: NewContext, person: Person) -> None:
    """A signed-out person is sent to /login and, once signed in, back to where they were; signing out leads there too."""
    page = await (await new_context(signed_in=False)).new_page()
    await page.goto("/training/jobs?status=failed")
    await expect(page).to_have_url(re.compile(r"/login\?next="))
    async with page.expect_response(re.compile("/api/notifications")):
        await page.get_by_role("button", name="Continue as the demo user").click()
    await expect(page).to_have_url(re.compile(r"/training/jobs\?status=failed$"))
    await expect(page.get_by_text("No failed job")).to_be_visible()
    (cookie,) = [one for one in await page.context.cookies() if one["name"] == "pipeline_session"]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    await page.context.clear_cookies()
    # At once: what the page requests by itself leads to the door as well.
    await page.get_by_role("button", name=re.compile("^Queued")).dispatch_event("click")
    await expect(page).to_have_url(re.compile(r"/login\?next=%2Ftraining%2Fjobs%3Fstatus%3Dqueued"))
    await page.get_by_role("button", name="Continue as the demo user").click()
    await page.get_by_role("button", name="Account").click()
    await page.get_by_role("menuitem", name="Sign out").click()
    await expect(page).to_have_url(re.compile("/login$"))
    await page.goto("/datasets")
    await expect(page).to_have_url(re.compile(r"/login\?next="))


async def test_the_bell_counts_and_lists(page: Page, person: Person) -> None:
    """The bell shows how many are unread; they can be narrowed to, read one by one, all at once, and followed."""
    dataset_id = await person.import_dataset("Ring")
    jobs = [await person.create_job(dataset_id) for _ in range(3)]
    await page.goto("/datasets")
    await page.get_by_role("button", name="Notifications, 3 unread").click()
    inbox = page.get_by_role("dialog", name="Notifications")
    await expect(inbox.get_by_role("listitem")).to_have_count(3)
    await inbox.get_by_role("button", name="Mark as read").first.click()
    await expect(inbox.get_by_role("button", name="Mark as read: ")).to_have_count(2)
    await inbox.get_by_role("button", name="Unread only").click()
    await expect(inbox.get_by_role("listitem")).to_have_count(2)
    await inbox.get_by_role("button", name="Training Job Queued").and_(inbox.locator(".text-left")).last.click()
    await expect(page).to_have_url(re.compile(jobs[0]["id"]))
    await page.get_by_role("button", name="Notifications, 1 unread").click()
    await inbox.get_by_role("button", name="Mark all read").click()
    await expect(inbox.get_by_text("No unread notifications.")).to_be_visible()
    await expect(page.get_by_role("button", name="Notifications", exact=True, include_hidden=True)).to_have_count(1)


async def test_offline_is_told_and_mends_itself(page: Page, person: Person) -> None:
    """Without a connection the page says so and keeps what it shows; once it is back, the rest is loaded."""
    await person.import_dataset("Offline")
    await page.goto("/datasets")
    await expect(page.get_by_text("Offline", exact=True)).to_be_visible()
    await page.get_by_role("link", name="Jobs").hover()
    await page.goto("/training/jobs")
    await page.context.set_offline(True)
    await expect(page.get_by_text("You are offline. The data shown may be out of date")).to_be_visible()
    await page.get_by_role("button", name=re.compile("^Running")).click()
    await page.context.set_offline(False)
    await expect(page.get_by_text("No running job")).to_be_visible()
    await expect(page.get_by_text("You are offline")).to_have_count(0)


@pytest.mark.parametrize("path", ["/datasets", "/training/jobs", "/training/configure"])
async def test_every_list_and_card_loads_with_a_skeleton_and_fails_with_a_way_out(page: Page, path: str) -> None:
    """Before the answer a skeleton says that it loads; an answer of 500 is explained until trying again has helped."""
    asked, answered = asyncio.Event(), asyncio.Event()
    broken = True

    async def fail(route: Route) -> None:
        asked.set()
        await answered.wait()
        if broken:
            await route.fulfill(status=500, json={"error": "Internal error", "request_id": "r-1", "details": ""})
        else:
            await route.continue_()

    called = "catalogue" if "configure" in path else path.rpartition("/")[2]
    await page.route(re.compile(f"/api/{called}"), fail)
    await page.goto(path)
    await expect(page.get_by_role("status").filter(has_text="Loading")).to_have_count(1)
    answered.set()
    alert = page.get_by_role("alert").filter(has_text="Internal error")
    await expect(alert).to_contain_text("request id r-1")
    asked.clear()
    answered.clear()
    await alert.get_by_role("button", name="Try again").click()
    await asked.wait()
    await expect(alert).to_contain_text("request id r-1")
    broken = False
    answered.set()
    await expect(alert).to_have_count(0)


async def test_text_of_users_is_text(page: Page, person: Person) -> None:
    """J18: a name with markup, quotes and directions is shown as it is and runs nothing."""
    name = "<img src=x onerror=alert(1)>'\"&amp;\u202e\u200b"
    dataset_id = await person.import_dataset(name)
    job = await person.create_job(dataset_id)
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    await page.goto("/datasets")
    await expect(page.get_by_role("row").filter(has_text="<img src=x onerror=alert(1)>")).to_be_visible()
    await page.goto(f"/training/jobs/{job['id']}")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("<img src=x onerror=alert(1)>")
    assert await page.locator("img").count() == 0


async def test_the_theme_follows_the_system_and_the_switch(new_context: NewContext) -> None:
    """Dark by the system's wish, light by the switch, and the switch is remembered from the first paint on."""
    page = await (await new_context(color_scheme="dark")).new_page()
    await page.goto("/datasets")
    dark = page.locator("html.dark")
    await expect(dark).to_have_count(1)
    await page.emulate_media(color_scheme="light")
    await expect(dark).to_have_count(0)
    await page.emulate_media(color_scheme="dark")
    await page.get_by_role("button", name="Theme").click()
    await page.get_by_role("menuitemradio", name="Light").click()
    await expect(dark).to_have_count(0)
    await page.reload(wait_until="commit")
    await page.wait_for_selector("#root", state="attached")
    assert await dark.count() == 0


async def test_reduced_motion_is_respected(new_context: NewContext) -> None:
    """Where the system asks for less motion, nothing moves for longer than an instant."""
    page = await (await new_context(reduced_motion="reduce")).new_page()
    await page.goto("/training/configure")
    await expect(page.get_by_role("radio", name="Balanced")).to_be_visible()
    longest = await page.evaluate(
        """() => Math.max(...[...document.querySelectorAll("*")].flatMap((e) => {
             const s = getComputedStyle(e);
             return [s.animationDuration, s.transitionDuration].flatMap((d) => d.split(",").map(parseFloat));
           }))"""
    )
    assert longest < 0.01


async def test_the_script_is_named_by_its_content(person: Person) -> None:
    """Files under assets/ may be kept for ever, the index may not."""
    import httpx

    async with httpx.AsyncClient(base_url=person.gateway) as http:
        index = await http.get("/datasets", headers={"accept": "text/html"})
        assert index.headers["cache-control"] == "no-cache"
        script = re.search(r'src="(/assets/[^"]+\.js)"', index.text)
        assert script
        assert "immutable" in (await http.get(script[1])).headers["cache-control"]
        assert Path(script[1]).suffix == ".js"
