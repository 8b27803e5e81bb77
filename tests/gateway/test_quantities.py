"""What channels are called towards platforms, bound to what the protocol says that they are."""

from urllib.parse import urlsplit

import pytest

from laterne_gateway.routes.quantities import LOST, quantity_of, table
from laterne_protocol.channels import QUANTITIES, QUANTITIES_A_SENSOR_KIND


def test_the_table_knows_the_quantities_of_the_protocol_and_no_others() -> None:
    """One that only the table knew would be told without its decimal point."""
    assert set(table()) == {str(number) for number in QUANTITIES} | {"lost"}


@pytest.mark.parametrize("number", QUANTITIES)
def test_a_quantity_is_told_in_its_unit_with_a_uri_and_names(number: int) -> None:
    name, unit, exponent = QUANTITIES[number]
    told = quantity_of(number)
    assert (told.name, told.ucum, told.exponent) == (name, unit, exponent)
    for uri in (told.definition, told.also):
        parts = urlsplit(uri or told.definition)
        assert parts.scheme in ("http", "https")
        assert parts.hostname
        assert parts.path.strip("/")
    assert all(text.strip() for text in (told.reference, told.name_de, told.unit, told.unit_de))


def test_no_two_channels_have_one_reference() -> None:
    """They would share a Datastream."""
    told = [quantity_of(channel) for channel in (LOST, *range(4 * QUANTITIES_A_SENSOR_KIND))]
    assert len({one.reference for one in told}) == len(told)
    assert len({one.definition for one in map(quantity_of, QUANTITIES)}) == len(QUANTITIES)
