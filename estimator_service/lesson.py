"""What finished runs of one kind teach: pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from estimator_service.forecast import learned

Kind = tuple[str, str, str]  # model family, GPU type, software stack


class Lesson(NamedTuple):
    """Factors of the speed and of the range's width, and how many jobs taught them."""

    correction: float = 1.0
    narrowing: float = 1.0
    jobs: int = 0


class Finished(NamedTuple):
    """A finished job: seconds it took, and what its forecast said of all of it and of what is not training."""

    seconds: float
    forecast_seconds: float
    overhead_seconds: float
    correction: float

    @property
    def log_ratio(self) -> float:
        """Log of measured ÷ predicted speed of the training itself, as the model says it without corrections.

        What is not training is taken as forecast, as long as that leaves the better part; else as it was in proportion.
        """
        training = self.forecast_seconds - self.overhead_seconds
        taken = self.seconds - self.overhead_seconds
        if taken < self.overhead_seconds:
            taken = self.seconds * training / self.forecast_seconds
        return math.log(training * self.correction / taken)


class Accuracy(NamedTuple):
    """How good forecasts were; `month` None: all of them."""

    month: str | None
    jobs: int
    inside: float
    median_error: float


Lessons = Mapping[Kind, Lesson]
NO_LESSON = Lesson()


def lesson(finished: Sequence[Finished]) -> Lesson:
    """What jobs of one kind teach together."""
    return Lesson(*learned([job.log_ratio for job in finished]), len(finished))
