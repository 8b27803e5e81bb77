"""Ok, look at or broken: what a board's state means for whoever stands before it, and what is to be done.

Pure: states come in, findings go out, in the order in which a technician would look.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from laterne_protocol import credential, report
from laterne_provisioning.doctor.console import State
from laterne_provisioning.flashing.checking import Reading

OK, LOOK, BROKEN = VERDICTS = "ok", "look at", "broken"

YOUNG_MS = 600_000  # a start that no power began and that was less ago is worth a look; as slots counts them
GATEWAY_SILENT_MS = 60_000  # firmware/laterne_firmware/app.py: then the LED says so, too
DAMAGED_AN_HOUR = 60  # a packet a minute: bytes on a street cable are lost now and then
LEAST_FREE_BYTES = 16_384  # a handshake needs 28 KiB at once on 64 bits, objects of a board are half as large
MANY_WAITING = 10
FULL_BACKLOG = 23 * 64  # reports: 24 segments, of which the newest is open (backlog.py)
CLOCK_OFF_MS = 5000
# firmware/README.md, "Wear": erases for a report, small records of a start; the flash of a Pico.
ERASES_A_REPORT, ERASES_A_START, BLOCKS, ERASES_A_BLOCK = 1.5, 4, 352, 100_000


class Finding(NamedTuple):
    """about: one or two words. verdict: one of VERDICTS. said: what was found. do: a sentence, "" where all is well."""

    about: str
    verdict: str
    said: str
    do: str = ""


@dataclass(frozen=True)
class Facts:
    """What a board with a REPL has said. interpreter: in words. release: of slot a, None: none is on it.

    blocks, free_blocks: of its flash, of block_bytes each. has_keys, has_main: on its flash. random: two draws of the
    port's generator differ.
    """

    interpreter: str
    release: str | None
    by_power: bool
    block_bytes: int
    blocks: int
    free_blocks: int
    free: int
    has_keys: bool
    has_credential: bool
    has_main: bool
    is_random: bool


def worst(findings: Sequence[Finding]) -> str:
    return max((finding.verdict for finding in findings), key=VERDICTS.index, default=OK)


def of_states(states: Sequence[State], now_ms: int) -> list[Finding]:
    """states: of one board, at least one, the oldest first. now_ms: this computer's UTC."""
    last = states[-1]
    return [
        _power(last),
        _release(last),
        _repl(last),
        *_sensors(last),
        _line(states),
        _clock(last, now_ms),
        _backlog(last),
        Finding("randomness", OK, "the port's generator is tested, and stirred with noise")
        if last.has_noise
        else Finding(
            "randomness",
            LOOK,
            "the port's generator is tested, but the analogue input gives no noise",
            "Leave that pin open and dry; the board goes on with its generator and its stored seed.",
        ),
        Finding("key", OK, f"in {credential.TIERS[last.tier]}, {last.model}"),
        _wear(last),
        _memory(last.free),
    ]


def of_facts(facts: Facts) -> list[Finding]:
    """Of a board with a REPL: nobody has enrolled it, and nothing of laterne runs on it now."""
    findings = [
        Finding("interpreter", OK, facts.interpreter),
        # Not worth a look: flashing ends in a reset, and a soft one counts on an ESP32.
        Finding("power", OK, "started when it got power" if facts.by_power else "started by a reset, not by power"),
    ]
    if facts.has_credential:
        findings.append(
            Finding(
                "REPL",
                BROKEN,
                "open, and the board is enrolled: its keys may have been read",
                "Revoke it, erase its flash (BOOTSEL, esptool) and flash it under a new id.",
            )
        )
    elif facts.has_main:
        findings.append(Finding("REPL", OK, "open until it is enrolled", "Enrol it: laterne board enrol."))
    else:
        findings.append(
            Finding(
                "REPL", LOOK, "open, nothing of laterne starts on it", "Flash it: laterne flash PORT --release FILE."
            )
        )
    findings.append(
        Finding("release", LOOK, "none is on it", "Flash it: laterne flash PORT --release FILE.")
        if facts.release is None
        else Finding("release", OK, f"{facts.release} lies in slot a")
    )
    findings.append(
        Finding("randomness", OK, "the port's generator gives other numbers each time")
        if facts.is_random
        else Finding("randomness", BROKEN, "the port's generator repeats itself", "Take another board.")
    )
    findings.append(Finding("key", OK, "made already" if facts.has_keys else "it will make its own at its first start"))
    free = facts.free_blocks * facts.block_bytes // 1024
    size = facts.blocks * facts.block_bytes // 1024
    roomy = facts.release is not None or facts.free_blocks * 3 > facts.blocks * 2
    findings.append(
        Finding("flash", OK, f"{free} of {size} KiB are free")
        if roomy
        else Finding(
            "flash", LOOK, f"only {free} of {size} KiB are free, and no release is on it", "Remove what else is there."
        )
    )
    findings.append(_memory(facts.free))
    findings.append(
        Finding(
            "not known",
            OK,
            "line, clock, backlog and flash wear: a board tells of them once it is enrolled and runs",
            "Ask again then.",
        )
    )
    return findings


def sensors(names: Sequence[str], readings: Sequence[Reading]) -> list[Finding]:
    """Of a self-test: all that answer, with a reading of each channel."""
    return list(_answers([(name, "") for name in names], readings))


def _power(state: State) -> Finding:
    since = f"start {state.boot}, {_span(state.uptime_ms)} ago"
    if state.by_power:
        return Finding("power", OK, f"{since}, when it got power")
    if state.boot == 1:
        return Finding("power", OK, f"{since}, its first, as whoever flashed it began it")
    if state.uptime_ms < YOUNG_MS and state.is_enrolled:
        return Finding(
            "power",
            LOOK,
            f"{since}, by itself: a reset or its watchdog, not the power",
            "See whether it happens again: laterne board watch. If so, its console says why.",
        )
    return Finding("power", OK, f"{since}, by a reset")


def _release(state: State) -> Finding:
    if state.slot == "r":
        return Finding(
            "release",
            BROKEN,
            "the rescue runs: neither slot has a release that starts",
            "Give it a release: laterne campaign. It takes no readings until then.",
        )
    if state.is_tried:
        return Finding(
            "release",
            LOOK,
            f"{state.release} in slot {state.slot}, on trial",
            "Wait for the gateway to confirm it; otherwise the board goes back by itself.",
        )
    return Finding("release", OK, f"{state.release} in slot {state.slot}")


def _repl(state: State) -> Finding:
    if state.is_enrolled:
        return Finding("REPL", OK, f"closed: enrolled as {state.board}")
    return Finding(
        "REPL", LOOK, "open to whoever holds the board: it is not enrolled", "Enrol it: laterne board enrol."
    )


def _sensors(state: State) -> Iterator[Finding]:
    if state.switch_is_closed:
        yield Finding("service switch", LOOK, "closed: no readings are taken", "Open it.")
    if state.sensors is None:
        what = "not asked yet" if state.is_enrolled else "not read before the board is enrolled"
        do = "Repeat the command." if state.is_enrolled else "Read them now: --release FILE, that it was flashed with."
        yield Finding("sensors", LOOK, what, do)
        return
    yield from _answers(state.sensors, state.readings)


def _answers(found: Sequence[tuple[str, str]], readings: Sequence[Reading]) -> Iterator[Finding]:
    if not found:
        yield Finding("sensors", BROKEN, "none answers", "Look at the plug of the sensors and at SDA, SCL, 3.3 V.")
    failing = [(name, why) for name, why in found if why]
    for name, why in failing:
        yield Finding("sensors", BROKEN, f"{name}: {why}", "Look at its plug; if it stays, change the sensor.")
    for reading in readings:
        if reading.quality == report.MISSING:
            if not failing:
                yield Finding(reading.name, BROKEN, "no value", "Look at the sensor's plug.")
            continue
        said = reading.shown
        if reading.is_good:
            yield Finding(reading.name, OK, said)
        else:
            yield Finding(
                reading.name, LOOK, f"{said}, at the end of its range", "Is it covered, or in a lamp's light?"
            )
    if found and not failing and not readings:
        yield Finding("sensors", OK, f"{', '.join(name for name, _ in found)}; not read yet")


def _line(states: Sequence[State]) -> Finding:
    first, last = states[0], states[-1]
    counted = f"{last.damaged} damaged packets, {last.refused} questions without answer since its start"
    if last.asked_ms is None or last.asked_ms > GATEWAY_SILENT_MS:
        since = "since its start" if last.asked_ms is None else f"for {_span(last.asked_ms)}"
        return Finding(
            "line",
            LOOK,
            f"no gateway has asked {since}; {counted}",
            "Look at the line's cable; is the gateway running, and is the board in its roster?",
        )
    said = f"asked {last.asked_ms / 1000:.1f} s ago; {counted}"
    an_hour = last.damaged * 3_600_000 / max(last.uptime_ms, 60_000)
    if last.damaged > first.damaged or an_hour > DAMAGED_AN_HOUR:
        return Finding(
            "line",
            LOOK,
            said,
            "There is noise: look at shield, ground, A and B, the 120 ohms at both ends, and the baud rate.",
        )
    return Finding("line", OK, said)


def _clock(state: State, now_ms: int) -> Finding:
    kind, utc_ms, margin_ms = state.clock
    if kind == report.NEVER_SET or utc_ms is None:
        return Finding("clock", LOOK, "never set since its start", "A gateway sets it; readings are dated afterwards.")
    off_ms = abs(now_ms - utc_ms)
    if off_ms > CLOCK_OFF_MS + margin_ms:
        return Finding(
            "clock",
            LOOK,
            f"{_span(off_ms)} off this computer's clock",
            "Which one is right? If it is this one, look at the gateway's clock (NTP).",
        )
    if kind == report.HELD:
        return Finding("clock", LOOK, f"held, ± {margin_ms} ms: no gateway has set it for a while", "Look at the line.")
    return Finding("clock", OK, f"set, ± {margin_ms} ms")


def _backlog(state: State) -> Finding:
    if state.waiting >= FULL_BACKLOG:
        return Finding(
            "backlog", BROKEN, f"{state.waiting} reports wait, it is full: the oldest go", "Bring its gateway back now."
        )
    if state.waiting > MANY_WAITING:
        return Finding("backlog", LOOK, f"{state.waiting} reports wait", "Does a gateway fetch them? See the line.")
    return Finding("backlog", OK, f"{state.waiting} reports wait, {state.next_sequence - 1} made so far")


def _wear(state: State) -> Finding:
    erases = ERASES_A_REPORT * (state.next_sequence - 1) + ERASES_A_START * state.boot
    share = erases / (BLOCKS * ERASES_A_BLOCK)
    said = f"{share:.1%} of a Pico's life, by {state.next_sequence - 1} reports and {state.boot} starts"
    if share >= 1:
        return Finding("flash wear", BROKEN, said, "Take another board before it fails: laterne board replace.")
    return Finding("flash wear", LOOK, said, "Plan another board.") if share > 0.7 else Finding("flash wear", OK, said)


def _memory(free: int) -> Finding:
    if free < LEAST_FREE_BYTES:
        return Finding("memory", LOOK, f"{free // 1024} KiB are free", "If it stays so, reset the board and say so.")
    return Finding("memory", OK, f"{free // 1024} KiB are free")


def _span(milliseconds: int) -> str:
    seconds = milliseconds // 1000
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
