"""The table of fault sweeps: one table, however many processes have filled it."""

from laterne_emulator.sweep import Settings, Table


def counted(name: str, cases: int, *, lost: int = 0) -> Table:
    table = Table(Settings(seed=7))
    for case in table.sweep(name, "test", cases):
        with case:
            case.survived(sent=2, delivered=2 - lost, lost=lost)
    return table


def test_what_several_processes_counted_stands_in_one_table() -> None:
    table = counted("cuts", 3)
    table.add(counted("cuts", 4, lost=1).counted())
    table.add(counted("noise", 5).counted())

    assert (table.lines["cuts"].cases, table.lines["cuts"].sent, table.lines["cuts"].lost) == (7, 14, 4)
    assert (table.lines["noise"].cases, table.lines["noise"].seed) == (5, 7)
    assert table.text()[3].split()[:3] == ["all", "12", "24"]


def test_a_class_that_failed_in_another_process_is_shown_as_failed() -> None:
    table, other = Table(Settings()), counted("cuts", 1)
    other.lines["cuts"].failed = 1
    table.add(other.counted())

    assert "cuts (FAILED)" in table.text()[1]
