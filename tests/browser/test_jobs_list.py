"""The list of jobs: found again by name, label and status, sorted, paged, selected, cancelled and deleted."""

from __future__ import annotations

import json
import math
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from tests.browser.conftest import NewContext, Person, Trainer
from tests.jobs_service.trainers import until

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

LIST = "/training/jobs"
MANY = 10_000
LONGEST_TASK_MS = 200
# The label that is added to the filter moves the box behind it. A row that moves counts a hundred times that.
MAX_LAYOUT_SHIFT = 0.001
# `{columns}`: those that are not generated. `$2`: how many copies there are.
COPIES = """
    insert into lora_training_jobs ({columns})
    select {columns} from (
        select c.* from lora_training_jobs j, generate_series(1, $2::int) n,
            jsonb_populate_record(j, jsonb_build_object(
                'id', gen_random_uuid(), 'name', 'Run ' || n, 'labels', jsonb_build_array('batch ' || n % 100),
                'created_at', now() - n * interval '1 minute', 'estimated_total_cost', n % 500
            )) c
        where j.id = $1::uuid
    ) copies
"""


def rows(page: Page) -> Locator:
    """The links of the listed jobs, in order."""
    return page.get_by_role("table", name="Jobs").get_by_role("link")


def row(page: Page, name: str) -> Locator:
    """The row of a job."""
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


async def create_named(person: Person, *jobs: Mapping[str, object]) -> list[str]:
    """Queues a job for each set of fields, one after the other, and returns their ids."""
    dataset_id = await person.import_dataset("Reviews")
    return [(await person.create_job(dataset_id, **each))["id"] for each in jobs]


async def test_names_and_labels_are_shown_and_edited(page: Page, person: Person) -> None:
    """A job is listed by its name, with labels, dataset and base model; both can be edited and survive a reload."""
    (first, second) = await create_named(
        person, {}, {"name": "Night run", "labels": ["nightly", "v2"], "base_model": "llama-3.1-8b"}
    )
    await page.goto(LIST)
    await expect(rows(page)).to_have_text(["Night run", "Reviews"])
    await expect(row(page, "Night run")).to_contain_text("llama-3.1-8b")
    await expect(page.get_by_role("list", name="Labels of Night run").get_by_role("listitem")).to_have_text(
        ["nightly", "v2"]
    )
    await page.get_by_role("button", name="Edit name and labels of Reviews").click()
    dialog = page.get_by_role("dialog", name="Name and labels")
    await dialog.get_by_label("Name", exact=True).fill("Baseline")
    await dialog.get_by_label("Labels", exact=True).fill("first")
    await dialog.get_by_label("Labels", exact=True).press("Enter")
    await dialog.get_by_label("Labels", exact=True).press_sequentially("second,")
    await dialog.get_by_label("Labels", exact=True).fill("left in the box")
    await dialog.get_by_role("button", name="Remove label second").click()
    await dialog.get_by_role("button", name="Save").click()
    await expect(dialog).to_have_count(0)
    await expect(row(page, "Baseline")).to_be_visible()
    job = await person.ask("GET", f"/api/jobs/{first}")
    assert (job["name"], job["labels"]) == ("Baseline", ["first", "left in the box"])
    await page.get_by_role("button", name="Edit name and labels of Night run").click()
    await dialog.get_by_label("Name", exact=True).fill("")
    await dialog.get_by_label("Name", exact=True).press("Enter")
    await expect(rows(page)).to_have_text(["Reviews", "Baseline"])
    job = await person.ask("GET", f"/api/jobs/{second}")
    assert (job["name"], job["labels"]) == (None, ["nightly", "v2"])


async def test_jobs_are_found_by_search_label_and_status_and_the_url_has_it_all(page: Page, person: Person) -> None:
    """Search, labels and status narrow the list together; each status has its count; reload and Back keep the filters."""
    (_, _, third) = await create_named(
        person,
        {"name": "Night run 1", "labels": ["nightly"]},
        {"name": "Night run 2", "labels": ["nightly", "eval"]},
        {"name": "Day run", "labels": ["eval"]},
    )
    await person.ask("POST", f"/api/jobs/{third}/cancel")
    await page.goto(LIST)
    for name in ("All 3", "Queued 2", "Running 0", "Cancelled 1"):
        await expect(page.get_by_role("button", name=name, exact=True)).to_be_visible()
    await page.get_by_label("Search jobs by name or dataset").fill("NIGHT")
    await expect(rows(page)).to_have_text(["Night run 2", "Night run 1"])
    await expect(page.get_by_role("button", name="All 2", exact=True)).to_be_visible()
    await expect(page.get_by_role("button", name="Cancelled 0", exact=True)).to_be_visible()
    await row(page, "Night run 2").get_by_role("button", name="eval", exact=True).click()
    await expect(rows(page)).to_have_text(["Night run 2"])
    await page.get_by_role("button", name="Queued 1", exact=True).click()
    await expect(page).to_have_url(re.compile(r"\?status=queued&search=NIGHT&label=eval$"))
    await page.reload()
    await expect(rows(page)).to_have_text(["Night run 2"])
    await expect(page.get_by_label("Search jobs by name or dataset")).to_have_value("NIGHT")
    await page.go_back()
    await page.go_back()
    await expect(rows(page)).to_have_text(["Night run 2", "Night run 1"])
    await page.get_by_label("Filter by label").fill("nothing like it")
    await page.get_by_label("Filter by label").press("Enter")
    await expect(page.get_by_text("No job matches", exact=True)).to_be_visible()
    await page.get_by_role("button", name="Show all jobs").click()
    await expect(rows(page)).to_have_text(["Day run", "Night run 2", "Night run 1"])
    await expect(page.get_by_label("Search jobs by name or dataset")).to_have_value("")
    await expect(page).to_have_url(re.compile(f"{LIST}$"))


async def test_jobs_are_found_by_base_model(page: Page, person: Person) -> None:
    """The base model of a row, or one that is searched, narrows the list; the URL has it, and clearing shows all again."""
    await create_named(
        person,
        {"name": "None"},
        {"name": "Llama", "base_model": "llama-3.1-8b"},
        {"name": "Qwen", "base_model": "qwen2.5-7b"},
    )
    await page.goto(LIST)
    await row(page, "Qwen").get_by_role("button", name="qwen2.5-7b").click()
    await expect(rows(page)).to_have_text(["Qwen"])
    await expect(page).to_have_url(re.compile(r"\?model=qwen2.5-7b$"))
    box = page.get_by_label("Filter by base model")
    await expect(box).to_have_value("qwen2.5-7b")
    await box.click()
    await box.fill("llama 3.1 8b")
    await page.get_by_role("option").first.click()
    await expect(rows(page)).to_have_text(["Llama"])
    await expect(page.get_by_role("button", name="All 1", exact=True)).to_be_visible()
    await page.reload()
    await expect(rows(page)).to_have_text(["Llama"])
    await page.get_by_role("button", name="Any base model").click()
    await expect(rows(page)).to_have_text(["Qwen", "Llama", "None"])
    await page.go_back()
    await expect(box).to_have_value("llama-3.1-8b")


async def test_the_list_is_sorted_by_any_column(page: Page, person: Person) -> None:
    """A click on a column sorts by it, another one the other way round; what has no column is in "Sort by"."""
    await create_named(
        person,
        {"name": "b", "hyperparameters": {"learning_rate": 5e-5, "batch_size": 4, "epochs": 1, "rank": 16}},
        {"name": "c", "hyperparameters": {"learning_rate": 5e-5, "batch_size": 4, "epochs": 9, "rank": 16}},
        {"name": "a", "base_model": "llama-3.1-8b"},
    )
    await page.goto(LIST)
    await expect(rows(page)).to_have_text(["a", "c", "b"])
    await page.get_by_role("button", name="Name", exact=True).click()
    await expect(rows(page)).to_have_text(["a", "b", "c"])
    await expect(page.get_by_role("columnheader", name="Name", exact=True)).to_have_attribute("aria-sort", "ascending")
    await page.get_by_role("button", name="Name", exact=True).click()
    await expect(rows(page)).to_have_text(["c", "b", "a"])
    await expect(page).to_have_url(re.compile(r"\?sort=name&ascending=false$"))
    for column, words in {
        "Base model": "base_model",
        "Status": "status",
        "Progress": "progress",
        "GPU time": "duration",
        "Cost": "cost",
    }.items():
        await page.get_by_role("button", name=column, exact=True).click()
        await expect(page).to_have_url(re.compile(rf"\?sort={words}$"))
        order = {"sort": words, "ascending": str(words in ("base_model", "status")).lower()}
        response = await person.ask("GET", "/api/jobs", params=order)
        await expect(rows(page)).to_have_text([job["name"] for job in response["jobs"]])
    for label, words in {"Dataset": "dataset", "Estimate": "estimated_cost", "Created": None}.items():
        await page.get_by_role("combobox", name="Sort by").click()
        await page.get_by_role("option", name=label, exact=True).click()
        await expect(page).to_have_url(re.compile(rf"\?sort={words}$" if words else f"{LIST}$"))
    await expect(rows(page)).to_have_text(["a", "c", "b"])
    await page.get_by_role("button", name="Ascending", exact=True).click()
    await expect(rows(page)).to_have_text(["b", "c", "a"])
    await expect(page.get_by_role("button", name="Ascending", exact=True)).to_have_attribute("aria-pressed", "true")


async def test_pages_have_a_size_and_can_be_jumped_to(page: Page, person: Person) -> None:
    """The person chooses how many rows a page has and types the page to go to; one beyond the end is the last one."""
    await create_named(person, *({"name": f"Run {number}"} for number in range(31)))
    await page.goto(LIST)
    await expect(page.get_by_text("1–10 of 31 jobs")).to_be_visible()
    box = page.get_by_role("textbox", name="Page")
    await box.fill("4")
    await box.press("Enter")
    await expect(rows(page)).to_have_text(["Run 0"])
    await box.fill("99")
    await box.press("Enter")
    await expect(box).to_have_value("4")
    await page.get_by_role("combobox", name="Rows per page").click()
    await page.get_by_role("option", name="25 per page").click()
    await expect(rows(page)).to_have_count(25)
    await page.get_by_role("button", name="Next page").click()
    await expect(rows(page)).to_have_count(6)
    await expect(page).to_have_url(re.compile(r"\?limit=25&page=2$"))
    await page.goto(f"{LIST}?page=7")
    await expect(page).to_have_url(re.compile(r"\?page=4$"))
    await expect(rows(page)).to_have_text(["Run 0"])


async def test_several_jobs_are_cancelled_and_deleted_with_the_keyboard(page: Page, person: Person) -> None:
    """Selected with the space bar over two pages, jobs are cancelled, then deleted, with one confirmation each."""
    await create_named(person, *({"name": f"Run {number}"} for number in range(12)))
    await page.goto(LIST)
    await page.get_by_label("Select Run 11", exact=True).press("Space")
    await page.get_by_label("Select Run 10", exact=True).press("Space")
    await page.get_by_role("button", name="Next page").press("Enter")
    await page.get_by_label("Select Run 0", exact=True).press("Space")
    selection = page.get_by_role("region", name="Selection")
    await expect(selection.get_by_role("status")).to_have_text("3 selected")
    await expect(selection.get_by_role("button", name="Delete 0")).to_be_disabled()
    await expect(selection).to_contain_text("No selected job is final, so none can be deleted.")
    await selection.get_by_role("button", name="Cancel 3").press("Enter")
    dialog = page.get_by_role("dialog", name="Cancel 3 jobs?")
    await expect(dialog.get_by_role("listitem")).to_have_text(["Run 11", "Run 10", "Run 0"])
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await selection.get_by_role("button", name="Cancel 3").press("Enter")
    await dialog.get_by_role("button", name="Cancel 3 jobs").press("Enter")
    await expect(page.get_by_text("3 jobs cancelled")).to_be_visible()
    await expect(dialog).to_have_count(0)
    await expect(selection).to_have_count(0)
    await page.get_by_role("button", name="Cancelled 3").press("Enter")
    await expect(rows(page)).to_have_text(["Run 11", "Run 10", "Run 0"])
    await page.get_by_label("Select all jobs on this page").press("Space")
    await selection.get_by_role("button", name="Delete 3").press("Enter")
    await page.get_by_role("dialog").get_by_role("button", name="Delete 3 jobs").press("Enter")
    await expect(page.get_by_text("No cancelled job")).to_be_visible()
    counts = (await person.ask("GET", "/api/jobs"))["status_counts"]
    assert counts == {"queued": 9}


async def test_jobs_that_could_not_be_changed_are_named_one_by_one(page: Page, person: Person) -> None:
    """What fails is listed with its reason and stays selected; the rest is done, and what was not allowed is told before."""
    (first, second, third, _) = await create_named(person, *({"name": f"Run {number}"} for number in range(4)))
    for job_id in (first, second, third):
        await person.ask("POST", f"/api/jobs/{job_id}/cancel")
    await page.goto(LIST)
    await page.get_by_label("Select all jobs on this page").check()
    await page.get_by_role("button", name="Delete 3").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("1 job of the selection is not final yet and not included.")
    await person.ask("DELETE", f"/api/jobs/{second}")
    await dialog.get_by_role("button", name="Delete 3 jobs").click()
    failures = page.get_by_role("dialog", name="1 job not deleted")
    await expect(failures.get_by_role("listitem")).to_have_count(1)
    await expect(failures.get_by_role("listitem")).to_contain_text("Run 1")
    await expect(failures.get_by_role("listitem")).to_contain_text("not found", ignore_case=True)
    await expect(failures).to_contain_text("2 jobs deleted.")
    await failures.get_by_role("button", name="Close").last.click()
    await expect(rows(page)).to_have_text(["Run 3"])


@pytest.mark.parametrize("width", [375, 768, 1440])
async def test_names_keep_their_room(new_context: NewContext, person: Person, width: int) -> None:
    """At every width a name has at least 200 px, and nothing scrolls sideways while jobs are selected."""
    await create_named(person, {"name": "A name of some length " * 8, "labels": ["one", "x" * 64, "and another label"]})
    page = await (await new_context(viewport={"width": width, "height": 900})).new_page()
    await page.goto(LIST)
    await page.get_by_label("Select all jobs on this page").check()
    await expect(page.get_by_role("region", name="Selection")).to_be_visible()
    box = await rows(page).bounding_box()
    assert box is not None
    assert box["width"] >= 200
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def test_ten_thousand_jobs_are_searched_sorted_paged_and_compared_without_a_pause(
    chromium: Browser, page: Page, person: Person, trainer: Trainer
) -> None:
    """No task of the page takes 200 ms, and nothing is shifted, while 10,000 jobs are searched, sorted, paged, compared."""
    (job_id,) = await create_named(person, {"name": "Run 0"})
    lease = await trainer.take()
    await trainer.report(lease, 10, loss=1.0)
    await trainer.complete(lease)
    columns = await person.sql(
        "select column_name as name from information_schema.columns"
        " where table_name = 'lora_training_jobs' and is_generated = 'NEVER'"
    )
    await person.sql(COPIES.format(columns=", ".join(each["name"] for each in columns)), job_id, MANY - 1)
    await page.goto(LIST)
    await expect(page.get_by_role("button", name="All 10,000", exact=True)).to_be_visible()
    await page.evaluate(
        """() => { window.shifted = 0;
             new PerformanceObserver((list) => list.getEntries().filter((e) => !e.hadRecentInput)
                 .forEach((e) => window.shifted += e.value))
               .observe({ type: "layout-shift" }); }"""
    )
    answered = []

    async def wait_for(locator: Locator) -> None:
        start = time.monotonic()
        await expect(locator).to_be_visible()
        answered.append(time.monotonic() - start)

    await chromium.start_tracing(page=page, categories=["toplevel", "disabled-by-default-devtools.timeline"])
    search = page.get_by_label("Search jobs by name or dataset")
    await search.press_sequentially("run 77", delay=30)
    await wait_for(page.get_by_role("button", name="All 111", exact=True))
    await search.fill("")
    await wait_for(page.get_by_role("button", name="All 10,000", exact=True))
    await page.get_by_role("combobox", name="Rows per page").click()
    await page.get_by_role("option", name="100 per page").click()
    await wait_for(page.get_by_text("1–100 of 10,000 jobs"))
    await page.get_by_role("button", name="Estimate", exact=True).click()
    await wait_for(rows(page).first.filter(has_text=re.compile("^Run 499$")))
    await page.get_by_role("textbox", name="Page").fill("100")
    await page.get_by_role("textbox", name="Page").press("Enter")
    await wait_for(page.get_by_text("9,901–10,000 of 10,000 jobs"))
    await page.get_by_label("Filter by label").fill("batch 7")
    await page.get_by_label("Filter by label").press("Enter")
    await wait_for(page.get_by_role("button", name="All 100", exact=True))
    for name in ("Run 407", "Run 307", "Run 207"):
        await page.get_by_label(f"Select {name}", exact=True).check()
    assert await page.evaluate("window.shifted") < MAX_LAYOUT_SHIFT
    await page.get_by_role("button", name="Compare 3").click()
    await wait_for(page.get_by_role("region", name="Jobs side by side"))
    longest = longest_task_ms(json.loads(await chromium.stop_tracing()))
    print(f"10,000 jobs: longest task {longest:.0f} ms, answers after {max(answered) * 1000:.0f} ms at most")
    assert 0 < longest < LONGEST_TASK_MS


def longest_task_ms(trace: Mapping[str, list[dict[str, Any]]]) -> float:
    """The longest task of the page's main thread by its processor time: how busy others kept the machine does not count."""
    events = trace["traceEvents"]
    main = {
        (e["pid"], e["tid"]) for e in events if e["name"] == "thread_name" and e["args"]["name"] == "CrRendererMain"
    }
    return max(e.get("tdur", 0) for e in events if e["name"] == "RunTask" and (e["pid"], e["tid"]) in main) / 1000


async def test_a_list_that_is_out_of_date_says_so(page: Page, person: Person) -> None:
    """Without live updates the list is polled and says so; without answers it says within seconds that it is out of date."""
    await page.add_init_script("delete window.SharedWorker")
    await page.route("**/events", lambda route: route.abort())
    await create_named(person, {"name": "Only one"})
    await page.goto(LIST)
    await expect(rows(page)).to_have_text(["Only one"])
    await expect(page.get_by_text("Live updates are interrupted. Refreshing every 4 s.")).to_be_visible()
    await page.route("**/api/jobs?*", lambda route: route.abort())
    await expect(page.get_by_text("Out of date: the server does not answer.")).to_be_visible()
    await page.unroute("**/api/jobs?*")
    await expect(page.get_by_text("Out of date")).to_have_count(0)


async def test_the_list_shows_what_there_is_of_each_gpu_type(page: Page, person: Person) -> None:
    """Below the jobs stands the capacity of all users: closed it is one line, open it has a row for each GPU type."""
    await create_named(person, {"gpu_config": {"type": "V100-32GB", "count": 3}})

    async def counted() -> bool:
        gpu_types = (await person.ask("GET", "/api/capacity"))["gpu_types"]
        return any(each["gpu_type"] == "V100-32GB" and each["queued_jobs"] for each in gpu_types)

    # A count is up to two seconds old.
    await until(counted)
    await page.goto(LIST)
    await page.get_by_role("heading", name="GPU capacity").click()
    row = page.get_by_role("table", name="GPU capacity").get_by_role("row").filter(has_text="V100-32GB")
    await expect(row.get_by_role("cell").nth(3)).not_to_have_text("0")
    await expect(row.get_by_role("cell").nth(4)).to_have_text("under a minute")


async def test_selected_jobs_are_compared(page: Page, person: Person, trainer: Trainer) -> None:
    """Curves of the selected jobs share a chart, what differs in their configurations is marked, and cost has its error."""
    changed = {"learning_rate": 1e-4, "batch_size": 4, "epochs": 3, "rank": 16}
    (first, second) = await create_named(person, {"name": "Slow"}, {"name": "Quick", "hyperparameters": changed})
    for lease in await trainer.take_all(2):
        for step in (1, 10, 20):
            await trainer.report(lease, step, loss=2 / step, learning_rate=1e-4)
        if lease.job_id == first:
            await trainer.complete(lease)
    await page.goto(LIST)
    await page.get_by_label("Select Slow", exact=True).check()
    selection = page.get_by_role("region", name="Selection")
    await expect(selection.get_by_role("button", name="Compare 1")).to_be_disabled()
    await expect(selection).to_contain_text("Select another job to compare.")
    await page.get_by_label("Select Quick", exact=True).check()
    await selection.get_by_role("button", name="Compare 2").click()
    await expect(page).to_have_url(re.compile(rf"/training/jobs/compare\?ids={first},{second}$"))
    curve = page.get_by_role("slider", name="Loss, by step")
    await curve.press("Home")
    await expect(curve).to_have_attribute("aria-valuetext", "Slow 2, Quick 2 at step 1")
    table = page.get_by_role("region", name="Jobs side by side")
    await expect(table.get_by_role("row").filter(has_text="Learning rate")).to_have_text(
        re.compile("Learning rate.*differs.*5e-5.*1e-4")
    )
    await expect(table.get_by_role("row").filter(has_text="Batch size")).not_to_contain_text("differs")
    job = await person.ask("GET", f"/api/jobs/{first}")
    share = math.floor((job["final_cost"] / job["estimated_total_cost"] - 1) * 100 + 0.5)
    error = table.get_by_role("row").filter(has_text="Cost against P50")
    await expect(error).to_contain_text(f"({'−' if share < 0 else '+'}{abs(share)} %)")
    await page.get_by_label("Only differences").check()
    await expect(table.get_by_role("row").filter(has_text="Batch size")).to_have_count(0)
    await expect(table.get_by_role("row").filter(has_text="Learning rate")).to_be_visible()


@pytest.mark.parametrize("way", ["the browser's", "the page's"])
async def test_the_way_back_leads_to_the_list_as_it_was(page: Page, person: Person, way: str) -> None:
    """Back from a comparison, and from a job, filters and selection over two pages are as they were; a new visit has none."""
    await create_named(person, *({"name": f"Run {number}"} for number in range(11)), {"name": "Other"})
    await page.goto(f"{LIST}?search=run")
    await page.get_by_label("Select Run 9", exact=True).check()
    await page.get_by_role("button", name="Next page").click()
    await page.get_by_label("Select Run 0", exact=True).check()
    selection = page.get_by_role("region", name="Selection")

    async def go_back() -> None:
        if way == "the browser's":
            await page.go_back()
        else:
            await page.get_by_role("link", name="All jobs").click()
        await expect(page).to_have_url(re.compile(rf"{LIST}\?search=run&page=2$"))
        await expect(selection.get_by_role("status")).to_have_text("2 selected")
        await expect(page.get_by_label("Select Run 0", exact=True)).to_be_checked()

    await selection.get_by_role("button", name="Compare 2").click()
    await expect(page.get_by_role("heading", name="Compare jobs")).to_be_visible()
    await go_back()
    await rows(page).first.click()
    await expect(page.get_by_role("heading", name="Run 0")).to_be_visible()
    await go_back()
    for name in ("Datasets", "Jobs"):
        await page.get_by_role("navigation", name="Main").get_by_role("link", name=name).click()
    await expect(rows(page).first).to_have_text("Other")
    await expect(selection).to_have_count(0)


async def test_the_ninth_curve_is_not_hidden_without_a_word(page: Page, person: Person, trainer: Trainer) -> None:
    """Of nine jobs eight have their curves drawn; the page says so, and the ninth is shown once another is cleared."""
    ids = await create_named(person, *({"name": f"Run {number}"} for number in range(9)))
    for lease in await trainer.take_all(9):
        await trainer.report(lease, 1, loss=1.0)
    await page.goto(f"/training/jobs/compare?ids={','.join(ids)}")
    await expect(page.get_by_text("The curves of 8 of 9 jobs are shown.")).to_contain_text(
        "At most 8 jobs are shown at once: clear one to show another."
    )
    await expect(page.get_by_label("Run 8", exact=True)).to_be_disabled()
    await page.get_by_label("Run 0", exact=True).uncheck()
    await page.get_by_label("Run 8", exact=True).check()
    curve = page.get_by_role("slider", name="Loss, by step")
    await expect(curve).to_have_attribute("aria-valuetext", re.compile("Run 8 1"))
    await expect(curve).not_to_have_attribute("aria-valuetext", re.compile("Run 0 1"))


async def test_a_comparison_says_what_it_lacks(page: Page, person: Person) -> None:
    """Jobs that do not exist are named, one job alone is not compared, and the rest of too many is counted."""
    (job_id,) = await create_named(person, {"name": "Only one"})
    unknown = str(uuid.uuid4())
    await page.goto(f"/training/jobs/compare?ids={job_id},{unknown}")
    await expect(page.get_by_text(f"Not found: {unknown}.")).to_be_visible()
    await expect(page.get_by_text("One job is not enough")).to_be_visible()
    await page.goto(f"/training/jobs/compare?ids={','.join(str(uuid.uuid4()) for _ in range(21))}")
    await expect(page.get_by_text("The first 20 jobs are compared; 1 more in the address is not.")).to_be_visible()
    await page.get_by_role("link", name="Go to your jobs").click()
    await expect(rows(page)).to_have_text(["Only one"])


async def test_a_job_gets_its_name_and_labels_before_it_starts(page: Page, person: Person) -> None:
    """The form takes name and labels, keeps them over a reload, and the job's page shows and edits them."""
    dataset_id = await person.import_dataset("Named")
    await page.goto(f"/training/configure?datasetId={dataset_id}")
    start = page.get_by_role("button", name="Start Training")
    await expect(start).to_be_enabled()
    form = page.get_by_role("region", name="Name and labels")
    await form.get_by_label("Labels", exact=True).fill("first, second")
    await form.get_by_label("Labels", exact=True).press("Enter")
    await form.get_by_label("Name", exact=True).fill("A better rank")
    await form.get_by_label("Name", exact=True).press("Tab")
    await expect(page).to_have_url(re.compile(r"name=A\+better\+rank&label=first&label=second"))
    await page.reload()
    await expect(form.get_by_label("Name", exact=True)).to_have_value("A better rank")
    await form.get_by_label("Name", exact=True).fill("A better rank, again")
    await start.click()
    await expect(page.get_by_role("heading", name="A better rank, again", level=1)).to_be_visible()
    await expect(page.get_by_role("list", name="Labels").get_by_role("listitem")).to_have_text(["first", "second"])
    await page.get_by_role("button", name="Edit name and labels").click()
    dialog = page.get_by_role("dialog", name="Name and labels")
    await dialog.get_by_label("Name", exact=True).fill("Rank 32")
    await dialog.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("heading", name="Rank 32", level=1)).to_be_visible()
    await page.get_by_role("list", name="Labels").get_by_role("link", name="second").click()
    await expect(rows(page)).to_have_text(["Rank 32"])
    await expect(page).to_have_url(re.compile(r"\?label=second$"))


async def test_a_job_that_its_cost_limit_stopped_is_retried_with_a_new_limit(
    page: Page, person: Person, trainer: Trainer
) -> None:
    """The page asks for the limit, says what the job is expected to cost, and the new job has the limit and its origin."""
    (job_id,) = await create_named(person, {"name": "Stopped", "max_cost_usd": 1, "max_duration_seconds": 7200})
    await trainer.fail(await trainer.take(), "stopped")
    await person.sql("update lora_training_jobs set status_reason = 'cost_limit' where id = $1::uuid", job_id)
    await page.goto(f"/training/jobs/{job_id}")
    await page.get_by_role("button", name="Retry").click()
    dialog = page.get_by_role("dialog", name="Retry with another cost limit")
    await expect(dialog).to_contain_text("The limit of $1.00 stopped this job.")
    limit = dialog.get_by_label("New cost limit, $")
    await limit.fill("0")
    await expect(dialog.get_by_role("button", name="Queue a new job")).to_be_disabled()
    await limit.fill("0.02")
    await expect(dialog).to_contain_text("the job would be stopped before it completes")
    await limit.fill("25.5")
    await limit.press("Enter")
    await expect(page).not_to_have_url(re.compile(job_id))
    job = await person.ask("GET", f"/api/jobs/{page.url.rpartition('/')[2]}")
    assert (job["retried_from"], job["name"]) == (job_id, "Stopped")
    assert (job["max_cost_usd"], job["max_duration_seconds"]) == (25.5, 7200)
    await page.go_back()
    await page.get_by_role("button", name="Retry").click()
    await dialog.get_by_role("button", name="Queue a new job").click()
    await expect(page).not_to_have_url(re.compile(job_id))
    job = await person.ask("GET", f"/api/jobs/{page.url.rpartition('/')[2]}")
    assert (job["max_cost_usd"], job["max_duration_seconds"]) == (None, 7200)


async def test_a_job_whose_dataset_was_deleted_says_so(page: Page, person: Person, trainer: Trainer) -> None:
    """List and page say that the dataset was deleted; there is no retry, and duplicating asks for another dataset."""
    (job_id,) = await create_named(person, {"name": "Orphan"})
    await trainer.fail(await trainer.take(), "CUDA error")
    job = await person.ask("GET", f"/api/jobs/{job_id}")
    await person.ask("DELETE", f"/api/datasets/{job['dataset_id']}")
    await page.goto(LIST)
    await expect(row(page, "Orphan")).to_contain_text("Reviews · dataset deleted")
    await rows(page).first.click()
    await expect(page.get_by_text("Its dataset “Reviews” was deleted, so the job cannot be retried.")).to_be_visible()
    await expect(page.get_by_role("button", name="Retry")).to_have_count(0)
    await page.get_by_role("link", name="Duplicate and edit").click()
    await expect(page.get_by_label("Name", exact=True)).to_have_value("Orphan")
    await expect(page.get_by_text("Select a dataset first.").first).to_be_visible()
