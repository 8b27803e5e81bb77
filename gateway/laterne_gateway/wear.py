"""What this process has had written to the disk: SD cards wear by that, and by nothing else that we do."""

from pathlib import Path

COUNTS = Path("/proc/self/io")


def written_bytes() -> int | None:
    """Bytes that went to the disk for this process since it began; None where the kernel does not count them.

    proc(5), write_bytes: pages as they are first changed in memory. The file system's own journal is not in it, nor
    what the card writes for itself.
    """
    try:
        lines = COUNTS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    counts = dict(line.split(": ", 1) for line in lines if ": " in line)
    found = counts.get("write_bytes")
    return None if found is None else int(found)
