"""What a connection writes itself instead of leaving it to paho: the same bytes as paho's."""

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from laterne_gateway.routes.connection import UserProperties


@pytest.mark.parametrize(
    "pairs",
    [
        [("received", "2026-11-22T04:05:06.789Z"), ("historical", "false")],
        [("historical", "true")],
        [("post", "Straße 7")],
        [("n", "v" * 121)],
    ],
)
def test_user_properties_have_the_bytes_that_paho_would_write(pairs: list[tuple[str, str]]) -> None:
    theirs = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    theirs.UserProperty = pairs
    assert UserProperties(pairs).pack() == theirs.pack()  # type: ignore[no-untyped-call]


def test_more_than_one_byte_can_count_is_refused() -> None:
    with pytest.raises(ValueError, match="128 bytes"):
        UserProperties([("n", "v" * 122)])
