"""How long something takes, counted in a few classes: it needs the same memory after a year as after a minute."""

BOUNDS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # a good disk's sync, an SD card's, a tired card's


class Durations:
    """total_s: of all. counts: how many took no longer than the bound of the same place, and the last: any time."""

    def __init__(self) -> None:
        self.total_s = 0.0
        self.counts = [0] * (len(BOUNDS_S) + 1)

    def add(self, took_s: float) -> None:
        self.total_s += took_s
        for place, bound_s in enumerate(BOUNDS_S):
            if took_s <= bound_s:
                self.counts[place] += 1
        self.counts[-1] += 1
