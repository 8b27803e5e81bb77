"""What `laterne verify` has found, for people as tables and for programs as JSON."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from laterne_protocol import channels, report
from laterne_protocol.report_reading import REASONS
from laterne_provisioning import output, report_files
from laterne_provisioning.verifier import Account, Refused, Verified, Verifier

CLOCKS = {report.NEVER_SET: "never set", report.SET: "set", report.HELD: "held"}
MAX_REFUSED_SHOWN = 1000  # a flood of forged reports is counted, not kept


@dataclass
class Source:
    """Where a report came from: "FILE, bytes N to M", or the broker and the topic's board; safe to show."""

    text: str
    arrival_ms: int | None = None


@dataclass
class Tally:
    """What the run has come to so far."""

    verifier: Verifier
    show: Callable[[bytes, Source, Verified | Refused], None]
    save: report_files.Kept | None
    verified: int = 0
    refused: int = 0
    repeated: int = 0
    passed_over: int = 0
    readings: int = 0
    refusals: list[tuple[Refused, Source, int]] = field(default_factory=list)

    def take(self, body: bytes, addressed: str | None, source: Source) -> None:
        """Check one report, count it, show it, keep it."""
        verdict = self.verifier.check(body, addressed)
        if isinstance(verdict, Refused):
            self.refused += 1
            if len(self.refusals) < MAX_REFUSED_SHOWN:
                self.refusals.append((verdict, source, len(body)))
        elif verdict.repeated:
            self.repeated += 1
        else:
            self.verified += 1
            self.readings += len(verdict.readings)
            if self.save is not None:
                self.save.keep(body)
        self.show(body, source, verdict)

    @property
    def seen(self) -> int:
        """Reports looked at."""
        return self.verified + self.refused + self.repeated

    def is_good(self) -> bool:
        """Nothing refused, nothing missing, nobody overtaken, nothing passed over, something verified."""
        wrong = any(account.missing or account.overtaken for account in self.verifier.accounts())
        return self.verified > 0 and self.refused + self.passed_over == 0 and not wrong


def show_nothing(body: bytes, source: Source, verdict: Verified | Refused) -> None:
    """Tables and documents come at the end."""


def show_news() -> Callable[[bytes, Source, Verified | Refused], None]:
    """While one listens, what is wrong is said at once, and on a terminal of each board what it says first; for files
    the tables say it."""
    heard: set[str] = set()

    def show(body: bytes, source: Source, verdict: Verified | Refused) -> None:
        if source.arrival_ms is None:
            return
        if isinstance(verdict, Refused):
            output.message(f"{_named(verdict)}, report {_shown(verdict.sequence)}: refused: {verdict.reason}")
        elif verdict.board not in heard and sys.stderr.isatty():
            heard.add(verdict.board)
            utc_ms = verdict.clock[1]
            closed = "" if utc_ms is None else f" of {output.moment(utc_ms // 1000)}"
            last = ", ".join(
                f"{name} {one['value']} {'°C' if one['unit'] == 'Cel' else one['unit']}"
                for name, one in _last(verdict).items()
            )
            output.message(f"{verdict.board}, report {verdict.sequence}{closed}: verified: {last or 'no readings'}")

    return show


def show_line(body: bytes, source: Source, verdict: Verified | Refused) -> None:
    line: dict[str, object] = {
        "event": "report",
        "ok": isinstance(verdict, Verified),
        "board": verdict.board,
        "sequence": verdict.sequence,
        "bytes": len(body),
        "arrival_ms": source.arrival_ms,
        "source": source.text,
    }
    if isinstance(verdict, Refused):
        output.print_line(line | {"claims": verdict.claims, "reason": verdict.reason})
        return
    output.print_line(
        line
        | {
            "boot": verdict.boot,
            "closed_ms": verdict.closed_ms,
            "clock": CLOCKS[verdict.clock[0]],
            "closed_utc_ms": verdict.clock[1],
            "within_ms": None if verdict.clock[1] is None else verdict.clock[2],
            "readings": len(verdict.readings),
            "repeated": verdict.repeated,
            "lost": [list(gap) for gap in verdict.lost],
            "cut_ms": verdict.cut_ms,
            "release": verdict.release and verdict.release[0].hex(),
            "trial": verdict.release and verdict.release[1],
            "last": _last(verdict),
            "reason": None,
        }
    )


def _last(verdict: Verified) -> dict[str, dict[str, Any]]:
    """The last value of each channel and its UCUM unit, by the channel's name."""
    last = {reading.channel: reading.value for reading in verdict.readings if reading.value is not None}
    found: dict[str, dict[str, Any]] = {}
    for number, integer in sorted(last.items()):
        name, unit, exponent = channels.describe(number)
        value = integer * 10**exponent if exponent >= 0 else round(integer * 10.0**exponent, -exponent)
        found[name] = {"value": value, "unit": unit}
    return found


def document(tally: Tally) -> dict[str, object]:
    return {
        "ok": tally.is_good(),
        "reports_verified": tally.verified,
        "reports_refused": tally.refused,
        "reports_repeated": tally.repeated,
        "passed_over": tally.passed_over,
        "readings": tally.readings,
        "boards": [_account_document(account) for account in tally.verifier.accounts()],
        "refused": [
            {
                "board": refused.board,
                "claims": refused.claims,
                "sequence": refused.sequence,
                "reason": refused.reason,
                "source": source.text,
                "bytes": size,
            }
            for refused, source, size in tally.refusals
        ],
    }


def _account_document(account: Account) -> dict[str, object]:
    return {
        "board": account.board,
        "kid": account.kid.hex(),
        "reports": account.reports,
        "readings": account.readings,
        "repeated": account.repeated,
        "refused": account.refused,
        "first": account.first,
        "last": account.last,
        "starts": account.starts,
        "cut_ms": account.cut_ms,
        "release": account.release and account.release[0].hex(),
        "trial": account.release and account.release[1],
        "missing": [list(between) for between in account.missing],
        "lost": [list(gap) for gap in account.lost],
        "undated": account.dating.undated,
        "dated": [list(one) for one in account.dating.dated()],
        "clock_apart_ms": account.dating.apart_ms,
    }


def print_tables(tally: Tally) -> None:
    columns = (
        "board",
        "signed by key",
        "reports",
        "readings",
        "sequences",
        "starts",
        "release",
        "missing",
        "stated lost",
        "refused",
    )
    output.print_table(columns, [_account_row(account) for account in tally.verifier.accounts()])
    if tally.refusals:
        sys.stdout.write("\n")
        output.print_table(
            ("refused: board", "sequence", "reason", "where"),
            [
                [_named(refused), _shown(refused.sequence), refused.reason, source.text]
                for refused, source, _ in tally.refusals
            ],
        )
    for account in tally.verifier.accounts():
        for sentence in _overtaken(account) + _times(account):
            sys.stdout.write(f"\n{account.board}: {sentence}\n")
    more = tally.refused - len(tally.refusals)
    if more:
        sys.stdout.write(f"and {more} more refused\n")
    reports = "1 report" if tally.verified == 1 else f"{tally.verified} reports"
    sys.stdout.write(
        f"\n{reports} verified with {tally.readings} readings, {tally.repeated} repeated, {tally.refused} refused\n"
    )
    sys.stdout.flush()


def _account_row(account: Account) -> list[str]:
    return [
        account.board,
        account.kid.hex(),
        str(account.reports),
        str(account.readings),
        _sequences(account),
        _starts(account),
        _release(account),
        ", ".join(_between(first, last) for first, last in account.missing),
        ", ".join(f"{_between(first, last)} ({REASONS.get(reason, reason)})" for first, last, reason in account.lost),
        str(account.refused or ""),
    ]


def _overtaken(account: Account) -> list[str]:
    if not account.overtaken:
        return []
    return [
        "it has left out numbers, because reports came with its key that it does not know: its flash has lost them, or "
        "look for a second board with its key"
    ]


def _times(account: Account) -> list[str]:
    """What is to be said of the board's clock."""
    dating, said = account.dating, []
    if dating.undated:
        dated = list(dating.dated())
        within = f", within {max(one.within_ms for one in dated) / 1000:.1f} s" if dated else ""
        said.append(
            f"{dating.undated} reports were closed before it was told the time; {len(dated)} of them are dated by "
            f"others of the same start{within}; of {dating.undated - len(dated)} only start and order are known"
        )
    if dating.apart_ms:
        said.append(
            f"its reports of one start contradict each other by {dating.apart_ms / 1000:.1f} s: the clock of its "
            "gateway was wrong, or has been set"
        )
    return said


def _starts(account: Account) -> str:
    if not account.cut_ms:
        return str(account.starts or "")
    return f"{account.starts} (cost <= {account.cut_ms / 1000:.0f} s)"


def _release(account: Account) -> str:
    if account.release is None:
        return ""
    digest, tried, _ = account.release
    return f"{digest.hex()} (on trial)" if tried else digest.hex()


def _sequences(account: Account) -> str:
    if account.first is None:
        return "none verified" if account.refused else "nothing seen"
    return f"{account.first} to {account.last}"


def _between(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"


def _named(refused: Refused) -> str:
    if refused.board is None:
        return "unknown"
    if refused.claims is None:
        return refused.board
    return f"{refused.board}, claims to be {refused.claims}" if refused.claims != refused.board else refused.board


def _shown(sequence: int | None) -> str:
    return "unreadable" if sequence is None else str(sequence)
