"""The page of spec §4 where a job is configured, line by line."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import Locator, Page, Route, expect

from tests.browser.conftest import Calls, NewContext, Person, stop_the_clock

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

ESTIMATE = "POST /api/jobs/estimate"
UUID = "[0-9a-f-]{36}"


async def configure(page: Page, dataset_id: str | None, **more: object) -> None:
    """Opens the form and waits for the first price."""
    query = "&".join(
        f"{name}={value}" for name, value in {"datasetId": dataset_id, **more}.items() if value is not None
    )
    await page.goto(f"/training/configure?{query}")
    if dataset_id is not None:
        await expect(start(page)).to_be_enabled()


def start(page: Page) -> Locator:
    """The Start button."""
    return page.get_by_role("button", name="Start Training")


def box(page: Page, label: str) -> Locator:
    """The number beside a slider."""
    return page.get_by_role("textbox", name=label)


def slider(page: Page, label: str) -> Locator:
    """A slider's thumb."""
    return page.get_by_role("slider", name=label)


def line(page: Page, name: str) -> Locator:
    """A figure on the estimate card."""
    return (
        page.get_by_label("Estimate").locator("dl > div").filter(has=page.get_by_text(name, exact=True)).locator("dd")
    )


async def test_three_presets_show_their_values_and_set_them_all_at_once(page: Page, person: Person) -> None:
    """Three cards with an icon each show learning rate, batch, epochs and rank; choosing one sets every value."""
    await configure(page, await person.import_dataset())
    cards = page.get_by_role("radiogroup", name="Preset").get_by_role("radio")
    await expect(cards).to_have_count(3)
    icons = {"Fast": "lucide-zap", "Balanced": "lucide-target", "Quality": "lucide-crown"}
    for preset in (await person.ask("GET", "/api/catalogue"))["presets"]:
        values = preset["hyperparameters"]
        card = page.get_by_role("radio", name=preset["name"], exact=True)
        await expect(card.locator(f"svg.{icons[preset['name']]}")).to_be_visible()
        await card.click()
        await expect(card).to_be_checked()
        for shown, label, value in (
            ("Learning rate", "Learning rate", f"{values['learning_rate']:.0e}".replace("e-0", "e-")),
            ("Batch", "Batch size", values["batch_size"]),
            ("Epochs", "Epochs", values["epochs"]),
            ("LoRA rank", "LoRA rank", values["rank"]),
        ):
            await expect(card).to_contain_text(re.compile(rf"{shown}\s*{value}"))
            await expect(box(page, label)).to_have_value(str(value))
            await expect(slider(page, label)).to_have_attribute("aria-valuetext", str(value))
        await page.get_by_text("Alpha and dropout").click()
        await expect(box(page, "LoRA alpha")).to_have_value(f"{values['alpha']:g}")
        await expect(box(page, "Dropout")).to_have_value(f"{values['dropout']:g}")
        await page.get_by_text("Alpha and dropout").click()


async def test_it_starts_on_the_catalogue_s_defaults(page: Page, person: Person) -> None:
    """A fresh form is on Balanced, A100-80GB and 2 GPUs."""
    await configure(page, await person.import_dataset())
    await expect(page.get_by_role("radio", name="Balanced")).to_be_checked()
    await expect(page.get_by_role("radio", name="NVIDIA A100 80GB")).to_be_checked()
    await expect(box(page, "GPUs")).to_have_value("2")


async def test_gpu_types_come_from_the_catalogue(page: Page, person: Person, calls: Calls) -> None:
    """Every GPU type of the catalogue can be chosen, with its price and note, and the choice is what is priced."""
    await configure(page, await person.import_dataset())
    types = (await person.ask("GET", "/api/catalogue"))["gpu_types"]
    choices = page.get_by_role("radiogroup", name="GPU type").get_by_role("radio")
    await expect(choices).to_have_count(len(types))
    for gpu in types:
        choice = choices.and_(page.get_by_role("radio", name=gpu["name"], exact=True))
        await expect(choice).to_contain_text(f"${gpu['price_usd_per_hour']:.2f}/h")
        await expect(choice).to_contain_text(gpu["note"][1:])
    await page.get_by_role("radio", name="NVIDIA H100", exact=True).click()
    await expect(line(page, "Hourly rate")).to_have_text("$8.40/h")
    last = calls.to(ESTIMATE)[-1]
    assert last is not None
    assert last["gpu_config"] == {"type": "H100", "count": 2}


async def test_more_gpus_say_how_much_faster(page: Page, person: Person) -> None:
    """The count goes from 1 to 8; above one, the line says that training is about N times faster."""
    await configure(page, await person.import_dataset())
    gpus = slider(page, "GPUs")
    await expect(gpus).to_have_attribute("aria-valuemin", "1")
    await expect(gpus).to_have_attribute("aria-valuemax", "8")
    await gpus.press("End")
    await expect(page.get_by_text("Training will be 8× faster (approximately)")).to_be_visible()
    await gpus.press("Home")
    await expect(page.get_by_text("faster (approximately)")).to_have_count(0)
    await expect(page.get_by_role("radio", name="Balanced")).to_be_checked()


@pytest.mark.parametrize(
    ("label", "low", "high", "step", "trade"),
    [
        ("Learning rate", "1e-05", "0.0002", ("5e-5", "5.1e-5"), r"stable.*faster.*risk"),
        ("Batch size", "1", "16", ("4", "5"), r"faster.*memory"),
        ("Epochs", "1", "10", ("3", "4"), r"learn better.*diminishing"),
        ("LoRA rank", "4", "64", ("16", "20"), r"expressive.*larger model"),
    ],
)
async def test_sliders_show_value_and_trade(
    page: Page, person: Person, label: str, low: str, high: str, step: tuple[str, str], trade: str
) -> None:
    """Each slider has its range and step, shows its value, says in one line what it trades, and makes the form custom."""
    await configure(page, await person.import_dataset())
    thumb = slider(page, label)
    assert float(await thumb.get_attribute("aria-valuemin") or "") == float(low)
    assert float(await thumb.get_attribute("aria-valuemax") or "") == float(high)
    described = await thumb.get_attribute("aria-describedby")
    await expect(page.locator(f"[id='{described}']")).to_have_text(re.compile(trade, re.IGNORECASE))
    await expect(box(page, label)).to_have_value(step[0])
    await thumb.press("ArrowRight")
    await expect(box(page, label)).to_have_value(step[1])
    await expect(thumb).to_have_attribute("aria-valuetext", step[1])
    await expect(page.get_by_text("Custom, based on Balanced")).to_be_visible()
    await page.get_by_role("button", name="Reset").click()
    await expect(box(page, label)).to_have_value(step[0])
    await expect(page.get_by_role("radio", name="Balanced")).to_be_checked()


async def test_the_card_shows_what_the_api_says(page: Page, person: Person) -> None:
    """Compute, storage, total, duration, rate, steps and throughput are the API's figures."""
    dataset_id = await person.import_dataset(pairs=333)
    await configure(page, dataset_id)
    values = (await person.ask("GET", "/api/catalogue"))["presets"][1]["hyperparameters"]
    body = {"dataset_id": dataset_id, "gpu_config": {"type": "A100-80GB", "count": 2}, "hyperparameters": values}
    response = await person.ask("POST", "/api/jobs/estimate", json=body)
    details = response["training_details"]
    for name, value in {
        "Compute": f"${response['cost_breakdown']['compute']:.2f}",
        "Storage": f"${response['cost_breakdown']['storage']:.2f}",
        "Total": f"${response['estimated_cost']:.2f}",
        "Duration": re.compile(rf"^{response['estimated_duration_hours']:.2f} h"),
        "Hourly rate": f"${response['hourly_rate']:.2f}/h",
        "Total steps": f"{details['total_steps']:,}",
        "Throughput": f"{details['estimated_throughput_tokens_per_sec']:,.0f} tok/s",
    }.items():
        await expect(line(page, name)).to_have_text(value)
    await expect(page.get_by_test_id("total")).to_have_text(f"${response['estimated_cost']:.2f}")


async def drag(page: Page, label: str, milliseconds: int) -> None:
    """Drags a slider to and fro for a while of the page's own time, and ends to the right of where it was."""
    await slider(page, label).scroll_into_view_if_needed()
    thumb = await slider(page, label).bounding_box()
    assert thumb is not None
    x, y = thumb["x"] + thumb["width"] / 2, thumb["y"] + thumb["height"] / 2
    await page.mouse.move(x, y)
    await page.mouse.down()
    for step in range(milliseconds // 50):
        await page.mouse.move(x + 40 + 40 * (step % 3), y)
        await page.clock.run_for(50)
    await page.mouse.move(x + 95, y)
    await page.mouse.up()


async def test_a_drag_asks_once_half_a_second_after_it_ends(page: Page, person: Person, calls: Calls) -> None:
    """During a 2-second drag no estimate goes out; 500 ms after its end exactly one does, and a spinner runs till then."""
    await page.clock.install()
    await configure(page, await person.import_dataset())
    before = len(calls.to(ESTIMATE))
    # From here on time passes when the test says so: a busy machine makes no pause in the drag.
    await stop_the_clock(page)
    await drag(page, "Epochs", 2000)
    spinner = page.get_by_test_id("estimating").first
    await expect(spinner).to_be_attached()
    await page.clock.run_for(490)
    assert len(calls.to(ESTIMATE)) == before
    async with page.expect_request("**/api/jobs/estimate"):
        await page.clock.run_for(20)
    await page.clock.resume()
    await expect(page.get_by_label("Estimate")).to_contain_text("since your last change")
    await expect(start(page)).to_be_enabled()
    await expect(page.get_by_test_id("estimating")).to_have_count(0)
    assert len(calls.to(ESTIMATE)) == before + 1


async def test_a_late_answer_never_shows(page: Page, person: Person) -> None:
    """The answer to an older question, arriving after the newer one's, changes nothing."""
    await configure(page, await person.import_dataset())
    late = asyncio.Event()
    values: list[Any] = []

    async def hold_first(route: Route) -> None:
        body = route.request.post_data_json
        if body["gpu_config"]["count"] != 8:
            await route.continue_()
            return
        response = await route.fetch()
        values.append(await response.json())
        await late.wait()
        await route.fulfill(response=response)

    await page.route("**/api/jobs/estimate", hold_first)
    async with page.expect_event("requestfailed", lambda request: request.url.endswith("/estimate")):
        await slider(page, "GPUs").press("End")
        async with asyncio.timeout(5):
            while not values:
                await asyncio.sleep(0.02)
        await slider(page, "GPUs").press("Home")
    await expect(line(page, "Hourly rate")).to_have_text("$3.50/h")
    total = await page.get_by_test_id("total").text_content()
    late.set()
    await page.unroute_all(behavior="wait")
    await expect(page.get_by_test_id("total")).to_have_text(total or "")
    assert values[0]["data"]["hourly_rate"] == 28
    await expect(line(page, "Hourly rate")).to_have_text("$3.50/h")


async def test_the_card_says_what_a_change_did_to_the_price(page: Page, person: Person) -> None:
    """After a change the card shows the difference to the price before, and a screen reader is told politely."""
    await configure(page, await person.import_dataset())
    before = float((await page.get_by_test_id("total").text_content() or "")[1:])
    await page.get_by_role("radio", name="Quality").click()
    await expect(start(page)).to_be_disabled()
    await expect(start(page)).to_be_enabled()
    after = float((await page.get_by_test_id("total").text_content() or "")[1:])
    said = f"+${after - before:.2f} since your last change"
    await expect(page.get_by_label("Estimate").get_by_text(said, exact=True)).to_be_visible()
    polite = page.get_by_label("Estimate").locator("[aria-live=polite]")
    await expect(polite).to_contain_text(f"Estimated total ${after:.2f}")
    await expect(polite).to_contain_text(said)


async def test_from_a_dataset_to_a_queued_job(page: Page, person: Person) -> None:
    """Datasets → configure → start → toast and job page → row in Postgres → notification."""
    dataset_id = await person.import_dataset("Flow")
    await page.goto("/datasets")
    await page.get_by_role("link", name="Start Training on Flow").click()
    await expect(page).to_have_url(re.compile(rf"/training/configure\?datasetId={dataset_id}"))
    await page.get_by_role("radio", name="Fast").click()
    await expect(start(page)).to_be_enabled()
    shown = await page.get_by_test_id("total").text_content()
    await start(page).click()
    await expect(page.get_by_text("Training job queued")).to_be_visible()
    await expect(page).to_have_url(re.compile(rf"/training/jobs/{UUID}$"))
    job_id = page.url.rpartition("/")[2]
    await expect(page.get_by_role("heading", name="Flow", level=1)).to_be_visible()
    (row,) = await person.sql("select * from lora_training_jobs where user_id = $1::uuid", person.id)
    assert (str(row["id"]), row["status"], row["preset_id"]) == (job_id, "queued", "fast")
    assert f"${row['estimated_total_cost']:.2f}" == shown
    (record,) = await person.sql("select * from lora_notifications where user_id = $1::uuid", person.id)
    assert (record["type"], record["action_url"]) == ("job_queued", f"/training/jobs/{job_id}")
    bell = page.get_by_role("button", name="Notifications, 1 unread")
    await bell.click()
    inbox = page.get_by_role("dialog", name="Notifications")
    await expect(inbox).to_contain_text('Your training job for "Flow" has been queued and will start shortly')
    await inbox.get_by_role("button", name="Mark as read: Training Job Queued").click()
    await expect(page.get_by_role("button", name="Notifications", exact=True)).to_be_visible()
    assert (await person.sql("select read from lora_notifications where user_id = $1::uuid", person.id))[0]["read"]


async def test_start_waits_for_what_it_needs(page: Page, person: Person) -> None:
    """Start is disabled while the page loads, with an estimate in flight, and with no dataset."""
    dataset_id = await person.import_dataset()
    answered = asyncio.Event()

    async def hold(route: Route) -> None:
        await answered.wait()
        await route.continue_()

    await page.route("**/api/jobs/estimate", hold)
    await page.goto(f"/training/configure?datasetId={dataset_id}")
    await expect(start(page)).to_be_disabled()
    answered.set()
    await expect(start(page)).to_be_enabled()
    await page.goto("/training/configure")
    await expect(page.get_by_text("No dataset is selected")).to_be_visible()
    await expect(start(page)).to_be_disabled()


async def test_without_a_dataset_it_says_where_they_are(page: Page, person: Person) -> None:
    """With no `datasetId` a note says so, one can be chosen there and then, and a button leads to the datasets."""
    await person.import_dataset("There")
    await configure(page, None)
    await expect(page.get_by_text("No dataset is selected")).to_be_visible()
    await expect(page.get_by_role("combobox", name="Dataset")).to_have_text("Select")
    await page.get_by_role("link", name="Go to datasets").click()
    await expect(page).to_have_url(re.compile("/datasets$"))


async def test_a_dataset_can_be_chosen_on_the_page(page: Page, person: Person) -> None:
    """When several datasets are ready, the form offers them, and keeps what was set."""
    first, second = await person.import_dataset("First"), await person.import_dataset("Second")
    await configure(page, first)
    await page.get_by_role("radio", name="Quality").click()
    await page.get_by_role("combobox", name="Dataset").click()
    await page.get_by_role("option", name="Second").click()
    await expect(page).to_have_url(re.compile(f"datasetId={second}"))
    await expect(page.get_by_role("radio", name="Quality")).to_be_checked()
    await expect(start(page)).to_be_enabled()


@pytest.mark.parametrize("way", ["Cancel", "Back"])
async def test_cancel_and_the_arrow_go_back(page: Page, person: Person, way: str) -> None:
    """Both lead to where the person was."""
    await person.import_dataset("Here")
    await page.goto("/datasets?search=here")
    await page.get_by_role("link", name="Start Training on Here").click()
    await page.get_by_role("radio", name="Fast").click()
    await expect(page).to_have_url(re.compile("preset=fast"))
    await page.get_by_role("button", name=way, exact=True).click()
    await expect(page).to_have_url(re.compile(r"/datasets\?search=here$"))


async def priced(person: Person, dataset_id: str, *, ready: bool) -> None:
    """Waits until the Estimator, which may remember a dataset for a moment, knows whether one is ready."""
    hyperparameters = {"learning_rate": 5e-5, "batch_size": 4, "epochs": 3, "rank": 16}
    body = {"dataset_id": dataset_id, "gpu_config": {"type": "H100", "count": 1}, "hyperparameters": hyperparameters}
    async with asyncio.timeout(15):
        while True:
            try:
                await person.ask("POST", "/api/jobs/estimate", json=body)
                is_known = True
            except AssertionError:  # refused
                is_known = False
            if is_known == ready:
                return
            await asyncio.sleep(0.1)


async def test_a_failed_estimate_says_why_and_keeps_the_form(page: Page, person: Person) -> None:
    """A dataset that is not ready any more: a toast and the card say so, every value stays, and trying again works."""
    dataset_id = await person.import_dataset()
    await configure(page, dataset_id)
    await person.sql("update lora_datasets set training_ready = false where id = $1::uuid", dataset_id)
    await priced(person, dataset_id, ready=False)
    await box(page, "Epochs").fill("7")
    toast = page.get_by_text("No estimate: Dataset not ready for training")
    await expect(toast).to_be_visible()
    alert = page.get_by_label("Estimate").get_by_role("alert")
    await expect(alert).to_contain_text("Choose a dataset that is ready")
    await expect(start(page)).to_be_disabled()
    await expect(box(page, "Epochs")).to_have_value("7")
    await person.sql("update lora_datasets set training_ready = true where id = $1::uuid", dataset_id)
    await priced(person, dataset_id, ready=True)
    await alert.get_by_role("button", name="Estimate again").click()
    await expect(start(page)).to_be_enabled()


async def test_a_failed_start_says_why_and_keeps_the_form(page: Page, person: Person) -> None:
    """A dataset that stopped being ready between estimate and start: a toast says what to do, every value stays."""
    dataset_id = await person.import_dataset()
    await configure(page, dataset_id, epochs=9)
    await person.sql("update lora_datasets set status = 'validating' where id = $1::uuid", dataset_id)
    await start(page).click()
    await expect(page.get_by_text("Not started: Dataset not ready for training")).to_be_visible()
    await expect(page.get_by_text("Choose a dataset that is ready")).to_be_visible()
    await expect(box(page, "Epochs")).to_have_value("9")
    assert await person.sql("select 1 from lora_training_jobs where user_id = $1::uuid", person.id) == []


async def test_values_out_of_range_are_explained(page: Page, person: Person, calls: Calls) -> None:
    """What is typed beside a slider stays as it is; what is wrong with it is said, and nothing is priced or started."""
    await configure(page, await person.import_dataset())
    before = len(calls.to(ESTIMATE))
    for typed, said in (
        ("65", "65 is too high. Enter a number from 1 to 64."),
        ("0", "0 is too low. Enter a number from 1 to 64."),
        ("2.5", "Enter a whole number from 1 to 64."),
        ("many", "This is not a number. Enter one from 1 to 64."),
        ("", "Enter a number from 1 to 64."),
    ):
        await box(page, "Batch size").fill(typed)
        await box(page, "Batch size").press("Tab")
        await expect(page.get_by_role("alert").filter(has_text=said)).to_be_visible()
        await expect(box(page, "Batch size")).to_have_value(typed)
        await expect(box(page, "Batch size")).to_have_attribute("aria-invalid", "true")
        await expect(start(page)).to_be_disabled()
    await box(page, "Batch size").fill("32")
    await expect(page.get_by_text("Outside the slider’s range, 1 to 16.")).to_be_visible()
    await expect(start(page)).to_be_enabled()
    assert len(calls.to(ESTIMATE)) == before + 1


async def test_the_address_holds_the_whole_configuration(page: Page, person: Person, new_context: NewContext) -> None:
    """A link opened in another window shows the same form and the same price."""
    await configure(page, await person.import_dataset())
    await page.get_by_role("radio", name="Quality").click()
    await page.get_by_role("radio", name="NVIDIA V100 32GB").click()
    await slider(page, "GPUs").press("End")
    await box(page, "Learning rate").fill("7.5e-5")
    await box(page, "Batch size").fill("12")
    await box(page, "LoRA rank").fill("24")
    await expect(page).to_have_url(re.compile("rank=24"))
    await expect(start(page)).to_be_enabled()
    query = parse_qs(urlsplit(page.url).query)
    assert {name: values[0] for name, values in query.items() if name != "datasetId"} == {
        "preset": "custom",
        "basedOn": "quality",
        "gpu": "V100-32GB",
        "gpus": "8",
        "lr": "7.5e-5",
        "batch": "12",
        "epochs": "5",
        "rank": "24",
        "alpha": "64",
        "dropout": "0.1",
    }
    other = await (await new_context()).new_page()
    await other.goto(page.url)
    await expect(start(other)).to_be_enabled()
    for label in ("GPUs", "Learning rate", "Batch size", "Epochs", "LoRA rank"):
        await expect(box(other, label)).to_have_value(await box(page, label).input_value())
    await expect(other.get_by_text("Custom, based on Quality")).to_be_visible()
    await expect(other.get_by_test_id("total")).to_have_text(await page.get_by_test_id("total").text_content() or "")


async def test_a_draft_survives(page: Page, person: Person) -> None:
    """What was set is there after a reload, and when the person comes back without the address; starting over clears it."""
    dataset_id = await person.import_dataset()
    await configure(page, dataset_id)
    await box(page, "Epochs").fill("6")
    await box(page, "LoRA rank").fill("9x")
    await expect(page).to_have_url(re.compile("epochs=6"))
    await page.reload()
    await expect(box(page, "Epochs")).to_have_value("6")
    await page.goto("/datasets")
    await page.goto(f"/training/configure?datasetId={dataset_id}")
    await expect(page.get_by_text("Your draft for this dataset was restored.")).to_be_visible()
    await expect(box(page, "Epochs")).to_have_value("6")
    await page.get_by_role("button", name="Start over").click()
    await expect(box(page, "Epochs")).to_have_value("3")
    await expect(start(page)).to_be_enabled()


async def test_a_double_click_makes_one_job(page: Page, person: Person, calls: Calls) -> None:
    """Two clicks at once start one job."""
    await configure(page, await person.import_dataset())
    await start(page).dblclick()
    await expect(page).to_have_url(re.compile(f"/training/jobs/{UUID}$"))
    assert len(await person.sql("select 1 from lora_training_jobs where user_id = $1::uuid", person.id)) == 1


async def test_a_second_tab_makes_no_second_job(page: Page, person: Person) -> None:
    """The same draft in two tabs carries one idempotency key: both lead to the same job, and a new form makes a new one."""
    dataset_id = await person.import_dataset()
    await configure(page, dataset_id)
    other = await page.context.new_page()
    await configure(other, dataset_id)
    await start(page).click()
    await expect(page).to_have_url(re.compile(f"/training/jobs/{UUID}$"))
    await start(other).click()
    await expect(other).to_have_url(page.url)
    await configure(other, dataset_id)
    await start(other).click()
    await expect(other).to_have_url(re.compile(f"/training/jobs/{UUID}$"))
    assert other.url != page.url
    assert len(await person.sql("select 1 from lora_training_jobs where user_id = $1::uuid", person.id)) == 2


async def test_a_reload_in_the_middle_makes_no_second_job(page: Page, person: Person) -> None:
    """The start goes out, the page is reloaded before the answer, and starting again leads to the job that was made."""
    await configure(page, await person.import_dataset())
    made = asyncio.Event()

    async def lose_the_answer(route: Route) -> None:
        if route.request.method == "POST":
            await route.fetch()
            made.set()
            await route.abort()
        else:
            await route.continue_()

    await page.route("**/api/jobs", lose_the_answer)
    await start(page).click()
    await asyncio.wait_for(made.wait(), 5)
    await page.reload()
    await page.unroute_all(behavior="ignoreErrors")
    await expect(start(page)).to_be_enabled()
    await start(page).click()
    await expect(page).to_have_url(re.compile(f"/training/jobs/{UUID}$"))
    assert len(await person.sql("select 1 from lora_training_jobs where user_id = $1::uuid", person.id)) == 1


async def test_the_keyboard_is_enough(page: Page, person: Person) -> None:
    """A job can be configured and started without a mouse, and where the focus is can be seen all the way."""
    await configure(page, await person.import_dataset())
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    reached: list[str] = []
    for _ in range(40):
        await page.keyboard.press("Tab")
        name, outline = await page.evaluate(
            """() => { const e = document.activeElement; const s = getComputedStyle(e);
                 return [e.getAttribute('aria-label') || e.textContent || e.id, s.outlineStyle + s.outlineWidth]; }"""
        )
        assert outline == "solid2px", name
        reached.append(name)
        if name == "Balanced":
            await page.keyboard.press("ArrowLeft", delay=80)
            await expect(page.get_by_role("radio", name="Fast")).to_be_checked()
            await expect(start(page)).to_be_enabled()
        if name == "Start Training":
            break
    assert {"Back", "Balanced", "NVIDIA A100 80GB", "GPUs", "Learning rate", "LoRA rank"} <= set(reached)
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile(f"/training/jobs/{UUID}$"))


async def test_on_a_phone_the_price_and_start_stay_in_view(person: Person, new_context: NewContext) -> None:
    """At 360 px nothing scrolls sideways, and price and Start are on the screen wherever the form is scrolled to."""
    context = await new_context(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    page = await context.new_page()
    await configure(page, await person.import_dataset())
    for _ in range(4):
        await expect(start(page)).to_be_in_viewport(ratio=1)
        await expect(page.get_by_test_id("total")).to_be_in_viewport(ratio=1)
        await page.mouse.wheel(0, 500)
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await page.get_by_role("button", name="Show the details").click()
    await expect(line(page, "Throughput")).to_be_in_viewport()
