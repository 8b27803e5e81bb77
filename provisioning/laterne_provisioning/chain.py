"""The chain of one board's reports: each has the next sequence and names the digest of the one before.

Reports may come in any order and more than once. What is missing is known exactly, as ranges of sequences.
"""

from dataclasses import dataclass, field

from laterne_protocol.report import FIRST_SEQUENCE

# Links kept to compare with: three days of a report a minute, 150 bytes each.
MAX_LINKS = 4320

Range = tuple[int, int]
"""Sequences from..to, both included."""


class ChainError(Exception):
    """A report that does not belong into the chain: its board's key has signed two histories, or lies about one."""


@dataclass
class Chain:
    """One board's chain. start: what report 1 names as its predecessor, the credential's digest.

    first, last: lowest and highest sequence seen, None before the first report. missing: the ranges between them
    that were not seen. What lies before `first` is not called missing: nobody may have listened.
    """

    start: bytes
    first: int | None = None
    last: int | None = None
    missing: list[Range] = field(default_factory=list)
    _links: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)

    def take(self, sequence: int, previous: bytes, digest: bytes) -> bool:
        """Whether this report is new (else it was seen before). digest: of its payload, 16 bytes. Raises ChainError."""
        known = self._links.get(sequence)
        if known is not None:
            if known[1] != digest:
                raise ChainError(
                    f"there is another report {sequence} of this board with other content: its key is in two places"
                )
            return False
        if not self._is_new(sequence):
            return False  # seen, and longer ago than links are kept
        before, after = self._links.get(sequence - 1), self._links.get(sequence + 1)
        if sequence == FIRST_SEQUENCE and previous != self.start:
            raise ChainError("it does not begin with the credential of this board")
        if before is not None and previous != before[1]:
            raise ChainError(f"it does not follow the report {sequence - 1} that was seen")
        if after is not None and after[0] != digest:
            raise ChainError(f"the report {sequence + 1} that was seen does not follow it")
        self._note(sequence)
        self._links[sequence] = (previous, digest)
        if len(self._links) > MAX_LINKS:
            del self._links[min(self._links)]
        return True

    def _is_new(self, sequence: int) -> bool:
        if self.first is None or self.last is None or not self.first <= sequence <= self.last:
            return True
        return any(start <= sequence <= end for start, end in self.missing)

    def _note(self, sequence: int) -> None:
        if self.first is None or self.last is None:
            self.first = self.last = sequence
        elif sequence > self.last:
            if sequence > self.last + 1:
                self.missing.append((self.last + 1, sequence - 1))
            self.last = sequence
        elif sequence < self.first:
            if sequence < self.first - 1:
                self.missing.insert(0, (sequence + 1, self.first - 1))
            self.first = sequence
        else:
            self.missing = without(self.missing, [(sequence, sequence)])


def without(ranges: list[Range], taken: list[Range]) -> list[Range]:
    """The ranges less what is in `taken`, in order."""
    for first, last in taken:
        left = []
        for start, end in ranges:
            if end < first or start > last:
                left.append((start, end))
                continue
            if start < first:
                left.append((start, first - 1))
            if end > last:
                left.append((last + 1, end))
        ranges = left
    return ranges
