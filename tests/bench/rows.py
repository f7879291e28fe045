"""The rows of the bench: what each measures, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median

from tests.bench.load import cpu_seconds, h2load, h2load_each, pgbench
from tests.bench.programs import CONFIGURATION, CREATORS, HERE, JOBS_OF_OTHERS, OWNERS, TRACED, Programs

NEW_JOB = {**CONFIGURATION, "preset_id": "balanced"}
CREATES = 1_280
MANY = 1_000_000


@dataclass(frozen=True)
class Side:
    """One of the programs of a row: `load` runs a round and returns the requests a second."""

    name: str
    count: int
    load: Callable[[], float]
    processes: tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """`measure` (`rate` or `cpu`) of one side over another's, and the least or the most that it must be."""

    side: str
    over: str
    measure: str
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class Row:
    """A row: what it compares, its programs, and its targets. `after` runs after each round of a side."""

    about: str
    sides: Callable[[Programs], list[Side]]
    targets: tuple[Target, ...] = ()
    after: Callable[[Programs], None] = lambda programs: None


@dataclass(frozen=True)
class Measured:
    """Of a side, one entry for each round: requests a second, and processor time in ms a request, by process."""

    rates: list[float]
    cpu_ms: dict[str, list[float]]

    def rate(self) -> float:
        """Returns the median of the requests a second."""
        return median(self.rates)

    def cpu(self) -> list[float]:
        """Returns the processor time of all processes together, by round."""
        return [sum(each) for each in zip(*self.cpu_ms.values(), strict=True)]


def ratio(target: Target, measured: Mapping[str, Measured]) -> float:
    """Returns the median of the rounds' own ratios: what else the machine does in a round meets both sides."""
    side, over = measured[target.side], measured[target.over]
    pairs = (
        zip(side.rates, over.rates, strict=True)
        if target.measure == "rate"
        else zip(side.cpu(), over.cpu(), strict=True)
    )
    return median(one / other for one, other in pairs)


def measure(row: Row, programs: Programs, rounds: int) -> dict[str, Measured]:
    """Runs a row's programs in turn, round after round; the first round warms up caches, pools and statements."""
    sides = row.sides(programs)
    results = {side.name: Measured([], {name: [] for name in side.processes}) for side in sides}
    for number in range(rounds + 1):
        for side in sides if number % 2 else sides[::-1]:
            before = {name: cpu_seconds(programs.processes[name]) for name in side.processes}
            rate = side.load()
            spent = {name: cpu_seconds(programs.processes[name]) - before[name] for name in side.processes}
            row.after(programs)
            if number:
                results[side.name].rates.append(rate)
                for name, seconds in spent.items():
                    results[side.name].cpu_ms[name].append(seconds * 1000 / side.count)
    return results


def _estimates(programs: Programs) -> list[Side]:
    programs.database("bench", JOBS_OF_OTHERS)
    return _each(programs, "/api/jobs/estimate", 2_000, programs.http_arguments(CREATORS[0], CONFIGURATION))


def _observed_estimates(programs: Programs) -> list[Side]:
    programs.database("bench", JOBS_OF_OTHERS)
    arguments = programs.http_arguments(CREATORS[0], CONFIGURATION)
    names = ("unmeasured", "serve", *TRACED)
    return [_http(name, programs.serve(name), "/api/jobs/estimate", 4_000, arguments) for name in names]


def _cold_estimates(programs: Programs) -> list[Side]:
    programs.database("bench", JOBS_OF_OTHERS)
    arguments = programs.http_arguments(CREATORS[0], CONFIGURATION)
    ports = {"cold": programs.serve("cold"), "fastapi": programs.fastapi(), "fastify": programs.fastify()}
    return [_http(name, port, "/api/jobs/estimate", 1_500, arguments) for name, port in ports.items()]


def _creations(programs: Programs) -> list[Side]:
    programs.database("bench", JOBS_OF_OTHERS)
    users = [programs.http_arguments(user, NEW_JOB) for user in CREATORS]

    def side(name: str, port: int, *more: str) -> Side:
        load = partial(h2load_each, f"http://127.0.0.1:{port}/api/jobs", CREATES, users)
        return Side(name, CREATES, load, (*(more or (name,)), "postgres"))

    script = partial(pgbench, programs.admin_url("bench"), HERE / "create_job.pgbench.sql", CREATES)
    return [
        side("serve", programs.serve()),
        side("fastapi", programs.fastapi()),
        side("fastify", programs.fastify()),
        side("apart", programs.apart()[0], "gateway", "jobs", "estimator"),
        Side("pgbench", CREATES, script, ("postgres",)),
    ]


def _lists(jobs: int, path: str, count: int, programs: Programs) -> list[Side]:
    programs.database("bench", JOBS_OF_OTHERS)
    return _each(programs, path, count, programs.http_arguments(OWNERS[jobs]))


def _growth(programs: Programs) -> list[Side]:
    programs.database("bench", JOBS_OF_OTHERS)
    port = programs.serve()
    return [
        _http(f"{jobs} jobs", port, "/api/jobs", 600, programs.http_arguments(user), "serve")
        for jobs, user in OWNERS.items()
    ]


def _others(programs: Programs) -> list[Side]:
    sides = []
    for name, database, others in (("few", "bench", JOBS_OF_OTHERS), ("many", "many", MANY)):
        programs.database(database, others)
        arguments = programs.http_arguments(OWNERS[10])
        sides.append(_http(name, programs.serve(name, database), "/api/jobs", 1_000, arguments))
    return sides


def _calls(programs: Programs) -> list[Side]:
    programs.database("bench", JOBS_OF_OTHERS)
    arguments = programs.grpc_arguments(CREATORS[0])
    ports = {"estimator": programs.apart()[1], "echo": programs.echo()}
    path = "/pipeline.estimator.v1.EstimatorService/EstimateCost"
    return [
        Side(name, 2_000, partial(h2load, f"http://127.0.0.1:{port}{path}", 2_000, *arguments, clients=4), (name,))
        for name, port in ports.items()
    ]


def _each(programs: Programs, path: str, count: int, arguments: list[str]) -> list[Side]:
    return [
        _http("serve", programs.serve(), path, count, arguments),
        _http("fastapi", programs.fastapi(), path, count, arguments),
        _http("fastify", programs.fastify(), path, count, arguments),
        _http("apart", programs.apart()[0], path, count, arguments, "gateway", "jobs", "estimator"),
    ]


def _http(name: str, port: int, path: str, count: int, arguments: list[str], *processes: str) -> Side:
    load = partial(h2load, f"http://127.0.0.1:{port}{path}", count, *arguments)
    return Side(name, count, load, (*(processes or (name,)), "postgres"))


ROWS: Mapping[str, Row] = {
    "estimate": Row(
        "POST /api/jobs/estimate, one user, the same dataset each time.\n"
        "Ours checks token, rate, limits and constraints and writes log lines; the others check token and schema.",
        _estimates,
        (
            Target("serve", "fastapi", "rate", least=2.5),
            Target("serve", "fastify", "cpu"),
            Target("apart", "fastapi", "cpu", most=1.9),
        ),
    ),
    "estimate-cold": Row(
        "The same with the Estimator's cache of datasets off, which else asks the database once in 0.9 seconds.\n"
        "All programs read the dataset's row for every estimate.",
        _cold_estimates,
        (Target("cold", "fastapi", "rate", least=1.3), Target("cold", "fastify", "cpu")),
    ),
    "telemetry": Row(
        "The same in `pipeline serve`: with nothing counted, with metrics as they are by default, and with the traces of\n"
        "1 % of requests, and of all of them, sent to a collector.",
        _observed_estimates,
        (
            Target("serve", "unmeasured", "cpu", most=1.02),
            Target("traced 1 %", "unmeasured", "cpu", most=1.02),
            Target("traced", "unmeasured", "cpu"),
        ),
    ),
    "create": Row(
        "POST /api/jobs of 16 users at once. Ours holds the limit on open jobs, has row-level security and writes an event\n"
        "and an audit line beside the notification. pgbench runs the inserts of job, event and notification alone.",
        _creations,
        (
            Target("serve", "fastapi", "rate", least=1.15),
            Target("serve", "fastapi", "cpu", most=1.0),
            Target("serve", "pgbench", "rate", least=0.5),
            Target("serve", "fastify", "cpu"),
            Target("apart", "fastapi", "cpu", most=3.3),
        ),
        Programs.forget_created,
    ),
    "list": Row(
        "GET /api/jobs of a user with 10 jobs, all of them on the page.\n"
        "Ours has twice the columns, the jobs by status, places in the queue and allowed actions.",
        partial(_lists, 10, "/api/jobs", 1_000),
        (
            Target("serve", "fastapi", "rate", least=1.6),
            Target("serve", "fastapi", "cpu", most=0.6),
            Target("serve", "fastify", "cpu"),
            Target("apart", "fastapi", "cpu"),
        ),
    ),
    "list-1000": Row(
        "The first page, 10 jobs, of a user with 1,000 jobs.\nEach program counts all of them for the total.",
        partial(_lists, 1_000, "/api/jobs", 600),
        (Target("serve", "fastapi", "cpu"), Target("serve", "fastify", "cpu")),
    ),
    "list-100": Row(
        "A page of 100 jobs of a user with 1,000 jobs.\n"
        "Shows what a job costs in SQL, messages and JSON, without what a request costs.",
        partial(_lists, 1_000, "/api/jobs?limit=100", 150),
        (Target("serve", "fastapi", "cpu"), Target("serve", "fastify", "cpu")),
    ),
    "list-growth": Row(
        "The first page of users with 10, 1,000 and 5,000 jobs, from `pipeline serve`.\n"
        "The page is cut in an index; what grows is the exact number of jobs by status.",
        _growth,
        (Target("5000 jobs", "10 jobs", "cpu", most=2.0), Target("1000 jobs", "10 jobs", "cpu")),
    ),
    "list-others": Row(
        "The page of a user with 10 jobs among 1,000,000 jobs of other users, and among 10,000.\n"
        "It should cost the same. Takes a minute more, to fill the table.",
        _others,
        (Target("many", "few", "cpu", most=1.1),),
    ),
    "call": Row(
        "EstimateCost over gRPC, against the least that grpc.aio does: a server that returns one message always.\n"
        "What is above that is identity, limits, constraints, the estimate and the log line.",
        _calls,
        (Target("estimator", "echo", "rate", least=0.6),),
    ),
}
