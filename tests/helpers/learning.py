"""Lessons for paces that learn, and a worker's part in them."""

import random

from smilejobs import LearnedPace
from smilejobs.durable.learning import LearnedRow, Learning
from smilejobs.durable.retrying import Retries

Wait = tuple[float, float | None, bool]
"""The arguments of `LearnedPace.observe`."""


def learning(row: LearnedRow, first: LearnedPace | None = None) -> Learning:
    return Learning(row, first or LearnedPace(), Retries().while_unavailable, 60.0)


def teach(pace: LearnedPace, *waits: Wait) -> LearnedPace:
    for pending_at, complete_at, provisional in waits:
        pace.observe(pending_at=pending_at, complete_at=complete_at, provisional=provisional)
    return pace


def drawn(seed: int, count: int) -> list[Wait]:
    """Waits for jobs of some seconds."""
    chance = random.Random(seed)
    durations = [chance.lognormvariate(1.6, 0.8) for _ in range(count)]
    return [(0.9 * duration, 1.1 * duration, False) for duration in durations]
