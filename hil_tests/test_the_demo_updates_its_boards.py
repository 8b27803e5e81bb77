"""P3, P4 in the demo: a good release reaches every board, a bad one stops at the first and is left again."""

from pathlib import Path

from tests.demo_run import DemoRun


async def test_a_good_release_goes_everywhere_and_a_bad_one_stops_at_the_canary(tmp_path: Path) -> None:
    async with DemoRun(tmp_path / "demo", "--boards", "2", "--update") as run:
        found = await run.figures()
    assert found["campaigns"] == [
        {"release": "0.1.0-good", "state": "COMPLETED", "boards": {"CONFIRMED": 2}},
        {"release": "0.1.0-bad", "state": "HALTED", "boards": {"QUEUED": 1, "FAILED": 1}},
    ]
    assert found["readings_lost"] == 0
    assert found["reports_refused"] == 0
    console = (run.place / "boards" / "board-01" / "console.log").read_text()
    assert console.count("is tried: start") == 4, "the good one once, the bad one three times"
