"""API keys over gRPC and in process: their user's rights, scopes and end; and what an attacker may try."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import grpc
import pytest
import structlog
from google.protobuf.timestamp_pb2 import Timestamp
from pipeline.api_keys.v1 import api_keys_pb2
from pipeline.common.v1 import options_pb2
from pipeline.datasets.v1 import datasets_pb2
from pipeline.estimator.v1 import estimator_pb2
from pipeline.jobs.v1 import jobs_pb2
from pipeline.notifications.v1 import notifications_pb2
from pipeline.workers.v1 import workers_pb2

from jobs_service.api_keys.model import NewApiKey
from rpc.identity.api_keys import SHAPE, key_hash, new_key
from tests.conftest import NewDataset, Stack, TestDatabase, metadata
from tests.door import call_empty, every_method, refused
from tests.jobs_service.jobs.test_create_job import new_request
from tests.jobs_service.queue.test_leases import GPUS, queue, until
from tests.jobs_service.queue.test_leases import worker as worker_metadata

ANN, BOB = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"
READ, JOBS, WORKER = options_pb2.SCOPE_READ, options_pb2.SCOPE_JOBS, options_pb2.SCOPE_WORKER
LIST = jobs_pb2.ListJobsRequest()


def bearer(key: str) -> list[tuple[str, str]]:
    """Metadata of a call with a key."""
    return [("authorization", f"Bearer {key}")]


async def create(
    stack: Stack, scopes: Sequence[int] = (READ,), caller: Any = None, **fields: Any
) -> api_keys_pb2.CreateApiKeyResponse:
    """Creates a key, of Ann by default."""
    scope: Any = list(scopes)
    request = api_keys_pb2.CreateApiKeyRequest(**{"name": "Script", "scopes": scope, **fields})
    return await stack.api_keys.CreateApiKey(request, metadata=caller or metadata(ANN))


async def revoke(stack: Stack, key_id: str, caller: Any = None) -> None:
    """Revokes a key."""
    request = api_keys_pb2.RevokeApiKeyRequest(id=key_id)
    await stack.api_keys.RevokeApiKey(request, metadata=caller or metadata(ANN))


async def caller_of(stack: Stack, key: str) -> api_keys_pb2.Caller:
    """Returns the caller that a key stands for."""
    response = await stack.api_keys.GetCaller(api_keys_pb2.GetCallerRequest(), metadata=bearer(key))
    return response.caller


@pytest.fixture
def short_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disables the cache of verified keys."""
    monkeypatch.setattr("rpc.identity.tokens.KEY_TRUST_SECONDS", 0.0)


async def test_a_key_has_the_rights_of_its_user(stack: Stack, new_dataset: NewDataset) -> None:
    """A key has the rights of its user's token in both services, and its jobs are priced for that user."""
    made = await create(stack, [JOBS])
    assert SHAPE.fullmatch(made.key)
    dataset = await new_dataset(ANN)
    others = await new_dataset(BOB)
    job = (await stack.jobs.CreateJob(new_request(dataset), metadata=bearer(made.key))).job
    assert job.user_id == ANN
    seen = (await stack.jobs.ListJobs(LIST, metadata=metadata(ANN))).jobs
    assert [each.id for each in seen] == [job.id]
    refusal = await refused(stack.jobs.CreateJob(new_request(others), metadata=bearer(made.key)))
    assert refusal.reason == "DATASET_NOT_FOUND"
    await stack.estimator.GetCatalogue(estimator_pb2.GetCatalogueRequest(), metadata=bearer(made.key))
    caller = await caller_of(stack, made.key)
    assert (caller.user_id, caller.role, list(caller.scopes)) == (ANN, options_pb2.ROLE_USER, [JOBS])
    assert caller.api_key_id == made.api_key.id
    assert caller.expires_at.seconds == made.api_key.expires_at.seconds


async def test_a_key_is_shown_once_and_kept_as_a_hash(stack: Stack, admin: asyncpg.Connection) -> None:
    """No other response, column or repr contains the key; the list has its prefix."""
    made = await create(stack, name="Nightly")
    stored = str(await admin.fetch("select * from api_keys"))
    secret = made.key.removeprefix(made.api_key.prefix)
    assert secret not in stored
    assert await admin.fetchval("select key_hash from api_keys") == key_hash(made.key)
    response = await stack.api_keys.ListApiKeys(api_keys_pb2.ListApiKeysRequest(), metadata=metadata(ANN))
    (listed,) = response.api_keys
    assert secret not in str(response)
    assert (listed.name, listed.prefix, list(listed.scopes)) == ("Nightly", made.key[:7], [READ])
    assert timedelta(days=89) < listed.expires_at.ToDatetime() - listed.created_at.ToDatetime() <= timedelta(days=90)
    assert not listed.HasField("last_used_at")
    await stack.jobs.ListJobs(LIST, metadata=bearer(made.key))
    response = await stack.api_keys.ListApiKeys(api_keys_pb2.ListApiKeysRequest(), metadata=metadata(ANN))
    assert response.api_keys[0].HasField("last_used_at")
    new = NewApiKey.generate("x", ["read"], None)
    assert new.key not in repr(new)


async def test_keys_are_random() -> None:
    """A thousand keys share no four characters in a place, and each has 43 of 64."""
    keys = [new_key() for _ in range(1000)]
    assert len(set(keys)) == 1000
    assert all(SHAPE.fullmatch(key) for key in keys)
    entropy = sum(
        -share * math.log2(share)
        for position in range(3, 45)
        for count in ([[key[position] for key in keys].count(letter) for letter in {key[position] for key in keys}],)
        for share in (each / 1000 for each in count)
    )
    # 42 places of 6 bits, less what a sample of a thousand misses.
    assert entropy > 42 * 5.8


@pytest.mark.parametrize("scopes", [[READ], [JOBS], [READ, JOBS]])
async def test_a_key_calls_only_the_rpcs_of_its_scopes(stack: Stack, scopes: list[int]) -> None:
    """A key can call the RPCs of its scopes; every other RPC of every service refuses it with PERMISSION_DENIED."""
    made = await create(stack, scopes)
    allowed = {"read"} | ({"jobs"} if JOBS in scopes else set())
    for channel, method in every_method(stack):
        if "user" not in method.roles:
            continue
        scope = method.scope_for("user")
        try:
            await call_empty(channel, method, metadata=bearer(made.key), timeout=1)
            reason = ""
        except grpc.aio.AioRpcError as error:
            details = error.code(), str(error.trailing_metadata())
            reason = details[1] if details[0] is grpc.StatusCode.PERMISSION_DENIED else ""
        assert ("SCOPE_NOT_ALLOWED" in reason) == (scope not in allowed), (method.path, scope, reason)


async def test_a_key_cannot_manage_keys(stack: Stack) -> None:
    """A key can neither create, list nor revoke keys."""
    made = await create(stack, [READ, JOBS])
    caller = bearer(made.key)
    calls = (
        create(stack, [READ], caller),
        revoke(stack, made.api_key.id, caller),
        stack.api_keys.ListApiKeys(api_keys_pb2.ListApiKeysRequest(), metadata=caller),
    )
    for call in calls:
        refusal = await refused(call)
        assert (refusal.code.name, refusal.reason) == ("PERMISSION_DENIED", "SCOPE_NOT_ALLOWED")
        assert refusal.metadata["scope"] == "sign_in"


async def test_a_key_has_the_role_of_its_creator(
    stack: Stack, database: TestDatabase, admin: asyncpg.Connection
) -> None:
    """Users create no worker keys and workers no user keys, also not with SQL as the login; a worker's key leases jobs."""
    refusal = await refused(create(stack, [WORKER]))
    assert (refusal.reason, list(refusal.violations)) == ("VALIDATION_FAILED", ["scopes"])
    assert (await refused(create(stack, [JOBS], worker_metadata()))).reason == "VALIDATION_FAILED"
    made = await create(stack, [WORKER], worker_metadata())
    lease = workers_pb2.LeaseJobsRequest(gpus=GPUS, max_jobs=1)
    await stack.workers.LeaseJobs(lease, metadata=bearer(made.key))
    assert (await refused(stack.jobs.ListJobs(LIST, metadata=bearer(made.key)))).reason == "ROLE_NOT_ALLOWED"
    user_key = await create(stack, [JOBS])
    assert (await refused(stack.workers.LeaseJobs(lease, metadata=bearer(user_key.key)))).reason == "ROLE_NOT_ALLOWED"
    connection = await asyncpg.connect(database.url)
    try:
        rows = (("user", "worker", ["worker"]), ("worker", "user", ["jobs"]), ("user", "user", ["worker"]))
        for role, role_of_key, scopes in rows:
            with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.CheckViolationError)):
                async with connection.transaction():
                    await become(connection, role)
                    await connection.execute(
                        "insert into api_keys (user_id, role, name, key_hash, prefix, scopes)"
                        " values ($1, $2, 'x', decode(repeat('00', 32), 'hex'), 'pk_', $3)",
                        ANN,
                        role_of_key,
                        scopes,
                    )
        for statement in (
            "update api_keys set scopes = '{jobs}'",
            "update api_keys set expires_at = now() + interval '1 year'",
            "select key_hash from api_keys",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with connection.transaction():
                    await become(connection, "user")
                    await connection.execute(statement)
        # The login itself, which looks keys up, changes nothing but when one was used.
        for statement in ("update api_keys set user_id = user_id", "delete from api_keys", "select name from api_keys"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()


async def become(connection: asyncpg.Connection, role: str) -> None:
    """Makes Ann the caller of a transaction."""
    claims = f'{{"sub":"{ANN}"}}'
    statement = "select set_config('role', $1, true), set_config('request.jwt.claims', $2, true)"
    await connection.execute(statement, f"pipeline_{role}", claims)


@pytest.mark.usefixtures("short_trust")
async def test_invalid_keys_are_refused(stack: Stack) -> None:
    """Guessed, altered and malformed keys get the same response."""
    made = await create(stack)
    key = made.key
    flipped = key[:-2] + ("A" if key[-2] != "A" else "B") + key[-1]
    guesses = [
        new_key(),
        flipped,
        key.swapcase(),
        key[:-1],
        key + "A",
        key + "=",
        "pk_",
        "pk_" + "A" * 43,
        "pk_" + "A" * 5000,
        f"pk_{made.api_key.id}",
        key_hash(key).hex(),
        "pk_" + key_hash(key).hex()[:43],
        "pk_' or true --" + "A" * 28,
        key.replace("pk_", "PK_"),
        f"{key},{key}",
        f"{key} {key}",
    ]
    answers = set()
    for guess in guesses:
        refusal = await refused(stack.jobs.ListJobs(LIST, metadata=bearer(guess)))
        assert refusal.code is grpc.StatusCode.UNAUTHENTICATED, guess
        assert guess[3:] not in str(refusal) or len(guess) < 10
        answers.add((refusal.reason, refusal.message))
    assert {reason for reason, _ in answers} == {"TOKEN_INVALID"}
    assert (await caller_of(stack, key)).user_id == ANN


@pytest.mark.usefixtures("short_trust")
async def test_refusals_take_the_same_time(stack: Stack) -> None:
    """Refusing a key takes the same time whether its last character or every character is wrong."""
    key = (await create(stack)).key
    near = key[:-2] + ("A" if key[-2] != "A" else "B") + key[-1]
    times: dict[str, list[float]] = {"near": [], "far": []}
    for _ in range(60):
        for name, guess in (("near", near), ("far", new_key())):
            began = time.perf_counter()
            await refused(stack.jobs.ListJobs(LIST, metadata=bearer(guess)))
            times[name].append(time.perf_counter() - began)
    near_median, far_median = statistics.median(times["near"]), statistics.median(times["far"])
    print("medians, seconds:", near_median, far_median)
    assert 0.5 < near_median / far_median < 2


async def test_guessed_keys_leave_connections_to_others(stack: Stack, admin: asyncpg.Connection) -> None:
    """Look-ups of invalid keys use at most two connections, so calls with a token are served meanwhile."""
    async with admin.transaction():
        await admin.execute("lock table api_keys in access exclusive mode")
        calls = (stack.jobs.ListJobs(LIST, metadata=bearer(new_key())) for _ in range(40))
        guesses = [asyncio.create_task(refused(call)) for call in calls]
        # The deletion of old keys may wait as well, for a stronger lock.
        waiting = (
            "select count(*) from pg_locks"
            " where not granted and relation = 'api_keys'::regclass and mode = 'AccessShareLock'"
        )
        await until(lambda: admin.fetchval(waiting))
        request = notifications_pb2.ListNotificationsRequest()
        await stack.notifications.ListNotifications(request, metadata=metadata(ANN), timeout=4)
        assert not any(each.done() for each in guesses)
        assert await admin.fetchval(waiting) <= 2
    assert {refusal.reason for refusal in await asyncio.gather(*guesses)} == {"TOKEN_INVALID"}


async def test_a_revoked_key_ends(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both services refuse a revoked key once their cache expires; a second revocation is NOT_FOUND."""
    from rpc.identity import tokens

    assert tokens.KEY_TRUST_SECONDS <= 10
    monkeypatch.setattr(tokens, "KEY_TRUST_SECONDS", 0.2)
    made = await create(stack, [JOBS])
    await stack.jobs.ListJobs(LIST, metadata=bearer(made.key))
    await stack.estimator.GetCatalogue(estimator_pb2.GetCatalogueRequest(), metadata=bearer(made.key))
    await revoke(stack, made.api_key.id)
    await asyncio.sleep(0.3)
    for call in (
        stack.jobs.ListJobs(LIST, metadata=bearer(made.key)),
        stack.estimator.GetCatalogue(estimator_pb2.GetCatalogueRequest(), metadata=bearer(made.key)),
    ):
        assert (await refused(call)).reason == "TOKEN_INVALID"
    assert (await refused(revoke(stack, made.api_key.id))).reason == "API_KEY_NOT_FOUND"


@pytest.mark.usefixtures("short_trust")
async def test_an_expired_key_ends(stack: Stack, admin: asyncpg.Connection) -> None:
    """An expired key is refused as expired and stays in the list; an expiry in the past or after a year is refused."""
    made = await create(stack)
    await admin.execute(
        "update api_keys set created_at = now() - interval '2 days', expires_at = now() - interval '1 s'"
    )
    assert (await refused(stack.jobs.ListJobs(LIST, metadata=bearer(made.key)))).reason == "TOKEN_EXPIRED"
    response = await stack.api_keys.ListApiKeys(api_keys_pb2.ListApiKeysRequest(), metadata=metadata(ANN))
    assert [each.id for each in response.api_keys] == [made.api_key.id]
    for moment in (timedelta(seconds=-1), timedelta(days=400)):
        stamp = Timestamp()
        stamp.FromDatetime(datetime.now(UTC) + moment)
        refusal = await refused(create(stack, expires_at=stamp))
        assert (refusal.reason, list(refusal.violations)) == ("VALIDATION_FAILED", ["expires_at"])
    stamp = Timestamp()
    stamp.FromDatetime(datetime.now(UTC) + timedelta(days=365))
    made = await create(stack, expires_at=stamp)
    assert made.api_key.expires_at.seconds == stamp.seconds


@pytest.mark.usefixtures("short_trust")
async def test_a_disabled_user_s_key_is_refused(stack: Stack, admin: asyncpg.Connection) -> None:
    """Disabling a user disables their keys."""
    made = await create(stack)
    await admin.execute("insert into disabled_users (user_id) values ($1)", ANN)
    assert (await refused(stack.jobs.ListJobs(LIST, metadata=bearer(made.key)))).reason == "USER_DISABLED"


async def test_keys_of_other_users_are_not_found(stack: Stack) -> None:
    """Another user, or a worker with the same id, can neither list nor revoke a key."""
    made = await create(stack)
    for caller in (metadata(BOB), metadata(ANN, role="worker")):
        assert (await refused(revoke(stack, made.api_key.id, caller))).reason == "API_KEY_NOT_FOUND"
        response = await stack.api_keys.ListApiKeys(api_keys_pb2.ListApiKeysRequest(), metadata=caller)
        assert list(response.api_keys) == []
    assert (await refused(revoke(stack, str(uuid.uuid4())))).reason == "API_KEY_NOT_FOUND"
    assert (await caller_of(stack, made.key)).user_id == ANN


async def test_a_user_has_a_limit_of_keys(stack: Stack) -> None:
    """The limit holds for concurrent creations; revoking a key allows another one."""
    calls = [create(stack) for _ in range(24)]
    made = [each for each in await asyncio.gather(*calls, return_exceptions=True) if not isinstance(each, Exception)]
    assert len(made) == 20
    refusal = await refused(create(stack))
    assert (refusal.code.name, refusal.reason, refusal.metadata["limit"]) == (
        "RESOURCE_EXHAUSTED",
        "API_KEY_LIMIT",
        "20",
    )
    await revoke(stack, made[0].api_key.id)
    await create(stack)


async def test_a_job_of_a_key_is_priced_with_the_key(stack: Stack, new_dataset: NewDataset) -> None:
    """CreateJob forwards the key to the Estimator, which verifies it; a key with the scope read can only estimate."""
    dataset = await new_dataset(ANN)
    reader = await create(stack, [READ])
    refusal = await refused(stack.jobs.CreateJob(new_request(dataset), metadata=bearer(reader.key)))
    assert (refusal.reason, refusal.metadata["scope"]) == ("SCOPE_NOT_ALLOWED", "jobs")
    request = datasets_pb2.ListDatasetsRequest()
    assert len((await stack.datasets.ListDatasets(request, metadata=bearer(reader.key))).datasets) == 1


async def test_a_key_is_in_no_log_line(stack: Stack, new_dataset: NewDataset) -> None:
    """Successful, failed and refused calls log their user and no part of the key."""
    with structlog.testing.capture_logs() as logs:
        made = await create(stack, [JOBS])
        await queue(stack, new_dataset)
        await stack.jobs.ListJobs(LIST, metadata=bearer(made.key))
        await refused(stack.jobs.GetJob(jobs_pb2.GetJobRequest(id=str(uuid.uuid4())), metadata=bearer(made.key)))
        await refused(stack.jobs.ListJobs(LIST, metadata=bearer(made.key[:-1])))
    said = str(logs)
    assert ANN in said
    assert made.key[7:-1] not in said
