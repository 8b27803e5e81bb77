"""What an operator may set on a board: /settings.json, optional.

A bad file means the defaults, and a line on the console that says so.
"""

import json

# name: (lowest, highest, default)
LIMITS = {
    "report_s": (5, 3600, 60),  # a report closes at this age
    "sample_ms": (200, 3600000, 2500),  # 4 channels: 96 readings a report
    "address": (1, 32, 1),  # on the bus
}


class Settings:
    """report_s: age at which a report closes. sample_ms: between two rows of readings. address: on the bus, 1..32."""

    def __init__(self, report_s: int, sample_ms: int, address: int) -> None:
        self.report_s = report_s
        self.sample_ms = sample_ms
        self.address = address


def load(path: str = "/settings.json") -> "tuple[Settings, str]":
    """The settings, and a sentence about what is wrong with the file: empty when nothing is."""
    values = {name: limits[2] for name, limits in LIMITS.items()}
    problem = ""
    try:
        with open(path) as file:
            content = file.read(1024)
    except OSError as why:
        content = "{}" if why.errno == 2 else ""  # ENOENT
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        problem = "settings.json is not a JSON object, defaults are used"
    else:
        problem = _check(found)
        if not problem:
            values.update(found)
    return Settings(values["report_s"], values["sample_ms"], values["address"]), problem


def _check(found: "dict[str, int]") -> str:
    for name, value in found.items():
        if name not in LIMITS:
            return "settings.json has the unknown name %r, defaults are used" % str(name)[:32]
        low, high, _ = LIMITS[name]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            return "settings.json: %s is not an integer in %d..%d, defaults are used" % (name, low, high)
    return ""
