"""The text that Prometheus reads (exposition format 0.0.4), and what it is told of a process.

By hand, because prometheus_client brings a web server and 1.5 MiB with it; its parser judges what is written here
(tests/gateway/test_metrics.py).
"""

import os
import resource
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

TYPE = "text/plain; version=0.0.4; charset=utf-8"

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


class Family:
    """Samples under one name. kind: COUNTER, whose name ends in _total, GAUGE or HISTOGRAM. told: one sentence."""

    def __init__(self, name: str, kind: str, told: str, value: float | None = None) -> None:
        self._head = f"# HELP {name} {_escaped(told)}\n# TYPE {name} {kind}\n"
        self._name = name
        self._lines: list[str] = []
        if value is not None:
            self.add({}, value)

    def add(self, labels: Mapping[str, str], value: float, suffix: str = "") -> None:
        """suffix: of a histogram, '_bucket', '_sum' or '_count'."""
        said = ",".join(f'{label}="{_escaped(text, quotes=True)}"' for label, text in labels.items())
        self._lines.append(f"{self._name}{suffix}{{{said}}} {float(value)!r}\n")

    def text(self) -> str:
        return self._head + "".join(self._lines)


def _escaped(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text


def text_of(families: Iterable[Family]) -> bytes:
    """A family that has no samples is told all the same: it is known, and empty."""
    return "".join(family.text() for family in families).encode()


def of_this_process() -> Iterator[Family]:
    """Memory, processor and descriptors under the names that all Prometheus clients use; nothing without /proc."""
    try:
        # proc(5): what follows the name, which may hold spaces and brackets, begins with field 3.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        descriptors = len(os.listdir("/proc/self/fd"))
    except OSError:
        return
    ticks_s = os.sysconf("SC_CLK_TCK")
    user, system, started, virtual, pages = (int(fields[number - 3]) for number in (14, 15, 22, 23, 24))
    yield Family("process_virtual_memory_bytes", GAUGE, "Virtual memory.", virtual)
    yield Family("process_resident_memory_bytes", GAUGE, "Memory that lies in RAM.", pages * resource.getpagesize())
    # Not from /proc/stat, which the service does not see. Whole seconds: the same at each answer.
    ago_s = time.clock_gettime(time.CLOCK_BOOTTIME) - started / ticks_s
    yield Family("process_start_time_seconds", GAUGE, "When it was started, UTC.", round(time.time() - ago_s))
    yield Family("process_cpu_seconds_total", COUNTER, "Processor, user and system.", (user + system) / ticks_s)
    yield Family("process_open_fds", GAUGE, "Open descriptors.", descriptors)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield Family("process_max_fds", GAUGE, "Descriptors that it may have open.", limit)
