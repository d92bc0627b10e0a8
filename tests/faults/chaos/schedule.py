"""When each action is done and undone: computed from a seed alone, so that a seed names a run.

Pure. Actions of one lane never overlap; lanes run side by side. Each lane draws from a generator of
its own, and switching an action off removes its steps after the drawing: the others stay where they
were. Every `PERIOD` seconds ends with `CALM` seconds in which nothing is in effect.
"""

import random
from dataclasses import dataclass

PERIOD, CALM = 45.0, 11.0


@dataclass(frozen=True)
class Kind:
    """An action: its weight within its lane, and how many seconds it stays in effect."""
    name: str
    lane: str
    weight: int
    shortest: float = 0.0
    longest: float = 0.0


@dataclass(frozen=True)
class Lane:
    """The seconds between the end of one action and the beginning of the next."""
    shortest: float
    longest: float


@dataclass(frozen=True, order=True)
class Step:
    at: float  # seconds from the beginning of the run
    lasts: float  # seconds until it is undone
    action: str
    draw: int  # the action derives its target from it

    def __str__(self):
        return f"{self.at:8.2f} s {self.action} for {self.lasts:.2f} s, draw {self.draw}"


LANES = {
    "nodes": Lane(4, 14),
    "network": Lane(4, 14),
    "admin": Lane(4, 14),
    "layers": Lane(1, 6),
    "receivers": Lane(1, 5),
}

KINDS = (
    Kind("node_killed", "nodes", 3, 1, 8),
    Kind("node_restarted", "nodes", 2, 0.5, 4),
    Kind("node_frozen", "nodes", 3, 1, 14),
    Kind("node_partitioned", "nodes", 2, 3, 12),
    Kind("connections_cut", "network", 4),
    Kind("publishers_cut", "network", 2),
    Kind("connections_frozen", "network", 3, 1, 8),
    Kind("connections_trickled", "network", 2, 2, 6),
    Kind("queue_deleted", "admin", 3),
    Kind("exchange_deleted", "admin", 3),
    Kind("private_part_deleted", "admin", 3),
    Kind("alternate_exchange", "admin", 1, 8, 14),
    Kind("queue_policy", "admin", 1, 2, 6),
    Kind("rights_taken", "admin", 2, 2, 6),
    Kind("limits_set", "admin", 2, 2, 6),
    Kind("alarm", "admin", 2, 2, 5),
    Kind("oversized_sends", "layers", 3),
    Kind("layer_closed", "layers", 3, 0.2, 5),
    Kind("process_forked", "layers", 2),
    Kind("receiver_dead", "receivers", 1, 1, 8),
    Kind("receiver_stalled", "receivers", 1, 1, 8),
)

NAMES = tuple(kind.name for kind in KINDS)


def plan(seed, seconds, without=()):
    """The steps of a run of `seconds`, in their order."""
    steps = []
    for lane, pauses in LANES.items():
        steps.extend(_plan_lane(seed, lane, pauses, seconds))
    return sorted(step for step in steps if step.action not in without)


def parse(text):
    """A step as a person gives it: ACTION:AT:LASTS:DRAW, as in exchange_deleted:18:0:1."""
    words = text.split(":")
    try:
        action, at, lasts, draw = words
        step = Step(float(at), float(lasts), action, int(draw))
    except ValueError:
        raise ValueError(f"'{text}' is no step; it would be ACTION:AT:LASTS:DRAW") from None
    check_names([action])
    return step


def check_names(actions):
    for action in actions:
        if action not in NAMES:
            raise ValueError(f"there is no action {action}; there are: {', '.join(NAMES)}")


def lane_of(action):
    return next(kind.lane for kind in KINDS if kind.name == action)


def _plan_lane(seed, lane, pauses, seconds):
    # A text as seed is hashed by SHA-512: the same on each machine and in each process.
    draws = random.Random(f"{seed}/{lane}")
    kinds = [kind for kind in KINDS if kind.lane == lane]
    weights = [kind.weight for kind in kinds]
    time = draws.uniform(0, pauses.longest)
    while True:
        kind = draws.choices(kinds, weights)[0]
        lasts = round(draws.uniform(kind.shortest, kind.longest), 2)
        draw = draws.randrange(2**32)
        begin = round(_within_a_storm(time, lasts), 2)
        time = begin + lasts + draws.uniform(pauses.shortest, pauses.longest)
        if begin + lasts > seconds - CALM:
            return
        yield Step(begin, lasts, kind.name, draw)


def _within_a_storm(time, lasts):
    """`time`, or the beginning of the next period where the action would reach into a calm."""
    period = time // PERIOD
    if time + lasts > period * PERIOD + PERIOD - CALM:
        return (period + 1) * PERIOD
    return time
