"""People of the campaign: they create jobs, cancel some, and watch all of theirs, through the gateway."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx

from tests.campaign.history import History

CALL_SECONDS = 15.0
# One creation in so many is sent twice at once, and one job in so many is cancelled.
TWICE, CANCELLED = 20, 25


@dataclass
class Person:
    """A user with a dataset of theirs, and what they know."""

    user_id: str
    token: str
    dataset_id: str
    revisions: Counter[str] = field(default_factory=Counter)
    last_event_id: str = ""
    watches: int = 0

    @property
    def headers(self) -> dict[str, str]:
        """What every request of theirs carries."""
        return {"authorization": f"Bearer {self.token}"}


class People:
    """All of them, and what they have achieved."""

    def __init__(self, gateway: str, people: list[Person], history: History, chance: random.Random) -> None:
        self._client = httpx.AsyncClient(
            base_url=gateway,
            timeout=CALL_SECONDS,
            limits=httpx.Limits(max_connections=100, max_keepalive_connections=50),
        )
        self.people = people
        self._history = history
        self._chance = chance
        self.acknowledged = 0
        self.answers: Counter[str] = Counter()
        # When a call was answered as it should be: how soon after a fault is what recovery means.
        self.served: list[float] = []

    async def close(self) -> None:
        """Closes every connection."""
        await self._client.aclose()

    async def create(self, person: Person) -> None:
        """Creates a job, and asks again with the same key until it is acknowledged, as a client must."""
        key = str(uuid.UUID(int=self._chance.getrandbits(128), version=4))
        copies = 2 if self._chance.randrange(TWICE) == 0 else 1
        ids = await asyncio.gather(*[self._create(person, key) for _ in range(copies)])
        self.acknowledged += 1
        if self._chance.randrange(CANCELLED) == 0:
            await asyncio.sleep(self._chance.uniform(0, 2))
            await self._cancel(person, ids[0])

    async def _create(self, person: Person, key: str) -> str:
        body = {
            "dataset_id": person.dataset_id,
            "preset_id": "balanced",
            "gpu_config": {"type": "A100-80GB", "count": 1},
            "hyperparameters": {"batch_size": 4, "epochs": 3, "learning_rate": 5e-5, "rank": 16},
        }
        headers = {**person.headers, "idempotency-key": key}
        while True:
            began = time.monotonic()
            status, answer = await self._post("/api/jobs", headers, body)
            about = {"user": person.user_id, "request_id": key}
            if status == 201:
                self._history.write("create", began, "ok", job=answer["data"]["id"], **about)
                self.served.append(time.monotonic())
                return str(answer["data"]["id"])
            self._history.write("create", began, "unknown", status=status, **about)
            await asyncio.sleep(self._chance.uniform(0.05, 0.5))

    async def _cancel(self, person: Person, job: str) -> None:
        while True:
            began = time.monotonic()
            status, answer = await self._post(f"/api/jobs/{job}/cancel", person.headers, None)
            if status in (200, 400):
                outcome = "ok" if status == 200 else f"refused:{answer['reason']}"
                self._history.write("cancel", began, outcome, user=person.user_id, job=job)
                return
            self._history.write("cancel", began, "unknown", user=person.user_id, job=job, status=status)
            await asyncio.sleep(self._chance.uniform(0.05, 0.5))

    async def _post(self, path: str, headers: dict[str, str], body: object) -> tuple[int, dict]:
        try:
            response = await self._client.post(path, headers=headers, json=body)
            answer = response.json()
        except (httpx.HTTPError, ValueError) as error:
            self.answers[type(error).__name__] += 1
            return 0, {}
        self.answers[str(response.status_code)] += 1
        return response.status_code, answer

    async def watch(self, person: Person) -> None:
        """Watches all of a person's jobs until cancelled; where the stream breaks, goes on after the last event."""
        while True:
            headers = {**person.headers, "accept": "text/event-stream"}
            if person.last_event_id:
                headers["last-event-id"] = person.last_event_id
            began = time.monotonic()
            try:
                timeout = httpx.Timeout(CALL_SECONDS, read=40.0)
                async with self._client.stream("GET", "/api/jobs/events", headers=headers, timeout=timeout) as response:
                    if response.status_code == 200:
                        person.watches += 1
                        async for name, event_id, data in _events(response):
                            self._told(person, name, event_id, data)
                    elif response.status_code < 500:
                        reason = json.loads(await response.aread())["reason"]
                        self._history.write("watch", began, f"refused:{reason}", watcher=person.user_id)
            except (httpx.HTTPError, ValueError):
                pass
            await asyncio.sleep(self._chance.uniform(0.05, 0.5))

    def _told(self, person: Person, name: str, event_id: str, data: dict) -> None:
        about = {"watcher": person.user_id, "from_start": True}
        if name == "event":
            about |= {"job": data["job_id"], "revision": data["revision"]}
            person.revisions[data["job_id"]] = max(person.revisions[data["job_id"]], data["revision"])
        elif name in ("snapshot", "reset"):
            about["revisions"] = {job["id"]: job["revision"] for job in data["jobs"]}
            person.revisions.update(about["revisions"])
        self._history.write(name, time.monotonic(), "ok", **about)
        person.last_event_id = event_id or person.last_event_id


async def _events(response: httpx.Response) -> AsyncIterator[tuple[str, str, dict]]:
    """Name, id and data of each server-sent event."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif fields.get("data"):
            yield fields.get("event", "message"), fields.get("id", ""), json.loads(fields["data"])
            fields = {}
        else:
            fields = {}
