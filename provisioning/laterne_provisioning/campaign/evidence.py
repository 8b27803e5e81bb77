"""What so many boards prove: the largest share of failures that they leave possible."""

import math

CONFIDENCE = 0.95


def bound(failed: int, boards: int) -> float:
    """The share of failures (0..1) that this result leaves possible at 95 %: the one-sided limit of Clopper and Pearson
    (Biometrika 26, 1934). With none failed it is 1 - 0.05 ** (1 / boards): 59 boards leave 5 %."""
    if failed >= boards:
        return 1.0
    low, high = failed / boards, 1.0
    for _ in range(60):  # of bisections: further than a float goes
        middle = (low + high) / 2
        if _at_most(failed, boards, middle) > 1 - CONFIDENCE:
            low = middle
        else:
            high = middle
    return high


def sentence(failed: int, boards: int) -> str:
    """The same for people."""
    if not boards:
        return "No board has shown anything yet."
    share = 100 * bound(failed, boards)
    what = f"{boards} clean boards" if not failed else f"{failed} of {boards} boards failed"
    return f"{what}: fewer than {share:.2g} % of all would fail, at 95 % confidence."


def _at_most(failed: int, boards: int, share: float) -> float:
    if share <= 0.0 or share >= 1.0:
        return 1.0 if share <= 0.0 else 0.0
    terms = [
        math.lgamma(boards + 1)
        - math.lgamma(count + 1)
        - math.lgamma(boards - count + 1)
        + count * math.log(share)
        + (boards - count) * math.log1p(-share)
        for count in range(failed + 1)
    ]
    return math.fsum(math.exp(term) for term in terms)
