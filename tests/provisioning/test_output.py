"""What a command shows fits where it is shown."""

from laterne_provisioning.output import widths

NAMES = ("board", "signed by key", "reports", "release")
ROW = ("LE-0001", "f66e186a727a8e3e", "nothing seen", "f5b5debcd5f5d35836a5947dae049ecc")


def test_columns_are_as_wide_as_what_is_in_them_where_there_is_room() -> None:
    assert widths(NAMES, [ROW], 200) == [7, 16, 12, 32]


def test_a_narrow_terminal_breaks_texts_at_spaces_before_keys_and_names_of_columns_last() -> None:
    assert widths(NAMES, [ROW], 66) == [7, 16, 8, 32]
    assert widths(NAMES, [ROW], 48) == [7, 15, 7, 16]
    assert widths(NAMES, [ROW], 30) == [6, 7, 7, 7]
    assert widths(NAMES, [ROW], 28) == [5, 6, 7, 7]


def test_a_terminal_without_width_shows_something() -> None:
    assert widths(NAMES, [ROW], 0) == [1, 1, 1, 1]
    assert widths((), [], 80) == []
    assert widths(("", "b"), [["", ""]], 80) == [1, 1]
