"""What a channel is called towards platforms: the table quantities.toml, read and judged once.

Cities complain about meaning more than about form (facts/urban_platform.md, 0 and 9), so URIs and UCUM codes are fixed
here and not left to each gateway's configuration.
"""

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from laterne_protocol import channels

FILE = Path(__file__).with_name("quantities.toml")
LOST = -1  # in the place of a channel: how many reports of a board are not to be had
_OM = "http://www.opengis.net/def/observationType/OGC-OM/2.0/"
MEASUREMENT, COUNT = _OM + "OM_Measurement", _OM + "OM_CountObservation"
UCUM = "http://unitsofmeasure.org/ucum#"  # and the code


@dataclass(frozen=True)
class Quantity:
    """reference: unique and stable. definition: URI. exponent: a value is its integer x 10**exponent in the unit."""

    reference: str
    name: str
    name_de: str
    definition: str
    also: str | None
    ucum: str
    symbol: str
    unit: str
    unit_de: str
    exponent: int
    observation_type: str

    def value(self, integer: int) -> float | int:
        """What a reading's integer means in the unit, rounded once."""
        scale: int = 10 ** abs(self.exponent)
        return integer / scale if self.exponent < 0 else integer * scale


@lru_cache(maxsize=1)
def table() -> dict[str, dict[str, object]]:
    """The table as it stands in the file."""
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


@lru_cache(maxsize=512)
def quantity_of(channel: int) -> Quantity:
    """What a channel, or LOST, is called. One that the table does not know is told by its number, without a unit."""
    number, sensor = (LOST, 0) if channel == LOST else (channel % 32, channel // 32)
    said = table().get("lost" if channel == LOST else str(number))
    if said is None:
        name = f"channel {channel}"
        definition = f"urn:laterne:channel:{channel}"
        return Quantity(
            f"channel-{channel}", name, f"Kanal {channel}", definition, None, "1", "", "one", "eins", 0, MEASUREMENT
        )
    text = {key: str(value) for key, value in said.items()}
    more = f" {sensor + 1}" if sensor else ""  # as channels.describe() counts
    return Quantity(
        text["reference"] + (f"-{sensor + 1}" if sensor else ""),
        text["name"] + more,
        text["name_de"] + more,
        text["definition"],
        text.get("also"),
        text["ucum"],
        text["symbol"],
        text["unit"],
        text["unit_de"],
        0 if channel == LOST else channels.describe(channel)[2],
        COUNT if said.get("count") else MEASUREMENT,
    )
