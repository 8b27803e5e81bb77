"""The real firmware on emulated boards: enrolment, reports, and what survives resets, watchdog and wrapped ticks."""

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from tests.firmware.questions import WITHIN_S, Asker, asking, sign

from laterne_emulator import image
from laterne_emulator.bench import NOISE_PIN
from laterne_emulator.world import Fault, Quantity
from laterne_protocol import channels, cose, frame, messages, report, report_reading

if TYPE_CHECKING:
    from laterne_emulator.bench import Bench
    from laterne_emulator.pytest_plugin import Benches

SETTINGS = {"report_s": 5, "sample_ms": 250}
NAME = "board-01"
SERVICE_PIN = 22


async def _served(bench: "Bench", readings: int) -> None:
    async with asyncio.timeout(WITHIN_S):
        while bench.readings_served(NAME) < readings:  # noqa: ASYNC110 - a count in the sensors, nobody tells
            await asyncio.sleep(0.05)


async def _report_now(bench: "Bench", asker: Asker) -> report.Report:
    """The open report, closed by the service switch: nobody waits for its age."""
    board = bench.boards[NAME]
    await _served(bench, bench.readings_served(NAME) + 4)  # there is an open report
    opened = board.usb.printed().count("readings go on")
    board.pins.drive(SERVICE_PIN, 0)
    (made,) = await asker.wait_for_reports(1)
    board.pins.drive(SERVICE_PIN, None)
    async with asyncio.timeout(WITHIN_S):
        while board.usb.printed().count("readings go on") == opened:  # noqa: ASYNC110 - the same line once more
            await asyncio.sleep(0.02)
    return made


async def test_a_board_enrols_and_its_reports_verify_with_an_independent_library(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(boards=2, settings=SETTINGS, paced=False)
    bench.world.hold(Quantity.TEMPERATURE, -7.5)
    bench.world.hold(Quantity.ILLUMINANCE, 800)  # at noon there is more than the sensor takes

    async def one(name: str) -> list[report.Report]:
        async with asking(bench.lines[name].path) as asker:
            await asker.enrol(name)
            return await asker.wait_for_reports(1)

    found = await asyncio.gather(*(one(name) for name in bench.boards))
    for name, reports in zip(bench.boards, found, strict=True):
        assert [(made.board, made.sequence, made.boot) for made in reports] == [(name, 1, 1)]
        for made in reports:
            readings = list(report_reading.readings_of(made))
            assert {channel for channel, *_ in readings} == {1, 2, 3, 4}
            assert all(flag == report.GOOD for *_, flag in readings)
            temperatures = [value for channel, _, value, _ in readings if channel == channels.TEMPERATURE]
            assert all(value is not None and -800 < value < -700 for value in temperatures)


async def test_questions_are_refused_or_answered_again_as_the_protocol_says(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(settings=SETTINGS, paced=False)
    async with asking(bench.lines[NAME].path) as asker:
        await asker.hello()
        refused = await asker.ask(lambda number: messages.Poll(number, None, 0))
        assert isinstance(refused, messages.Refusal)
        assert refused.reason == messages.NOT_ENROLLED
        foreign = sign(cose.CREDENTIAL, Asker.credential_for(NAME, bytes(64), bytes(64)))
        for reason in (messages.NOT_READY, messages.CREDENTIAL_REFUSED):
            refused = await asker.ask(lambda number: messages.Enrolment(number, messages.ENROL, foreign))
            assert isinstance(refused, messages.Refusal)
            assert refused.reason == reason
            await asker.give_trust(asker.authority.trust_file())
        await asker.enrol(NAME)
        again = await asker.ask(lambda number: messages.Enrolment(number, messages.ENROL, asker.credential))
        assert isinstance(again, messages.Enrolment)
        assert again.step == messages.ENROLLED
        for step, body in ((messages.ENROL, foreign), (messages.PROVE, bytes(16))):
            refused = await asker.ask(lambda number, s=step, b=body: messages.Enrolment(number, s, b))  # type: ignore[misc]  # mypy infers no lambda with a default
            assert isinstance(refused, messages.Refusal)
            assert refused.reason == messages.ALREADY_ENROLLED
        await _report_now(bench, asker)
        for _ in range(3):  # nothing acknowledged: the same report each time
            answer = await asker.ask(lambda number: messages.Poll(number, None, 0))
            assert isinstance(answer, messages.ReportAnswer)
            assert report_reading.report_of(cose.parse(answer.reports[0], 1024).payload).sequence == 1


async def test_a_board_hands_over_as_many_reports_at_once_as_a_frame_holds(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(settings=SETTINGS, paced=False)
    async with asking(bench.lines[NAME].path) as asker:
        await asker.enrol(NAME)
        pins = bench.boards[NAME].pins

        async def polled(after: int | None) -> messages.ReportAnswer:
            answer = await asker.ask(lambda number: messages.Poll(number, None, after))
            assert isinstance(answer, messages.ReportAnswer)
            return answer

        waiting = 0
        for closed in range(1, 8):
            await _served(bench, bench.readings_served(NAME) + 4)
            pins.drive(SERVICE_PIN, 0)  # closes the open report
            async with asyncio.timeout(WITHIN_S):
                while waiting < closed:
                    waiting = (await polled(None)).waiting
            pins.drive(SERVICE_PIN, None)
        answers: list[list[bytes]] = []
        found: list[bytes] = []
        while len(found) < waiting:
            answers.append((await polled(len(found))).reports)
            found += answers[-1]
        # Asked the same once more, it gives one: the long answer was lost. Then there is room for more and more.
        again = [(await polled(after)).reports for after in (1, 1, 1, 2, 3, 0, 1)]
    room = report.MAX_REPORT_BYTES + 3 - sum(len(body) + 3 for body in answers[0])
    assert len(answers[0]) > 3
    assert 0 <= room < len(found[len(answers[0])]) + 3, "the next one would not have fitted"
    assert again[:4] == [found[1 : 1 + len(again[0])], found[1:2], found[1:2], found[2:3]]
    assert 1 <= len(again[4]) <= len(again[5]) <= len(again[6]) > 3
    assert [report_reading.report_of(cose.parse(body, 1024).payload).sequence for body in found] == [
        *range(1, len(found) + 1)
    ]


async def test_whatever_comes_over_the_line_a_board_goes_on(emulated_boards: "Benches", board_seed: int) -> None:
    dice = random.Random(board_seed)
    bench = await emulated_boards(settings=SETTINGS, paced=False)
    async with asking(bench.lines[NAME].path) as asker:
        await asker.enrol(NAME)
        for _ in range(20):
            await asker.send(dice.randbytes(dice.randrange(1, 3000)))
            junk = dice.randbytes(dice.randrange(0, 200))
            await asker.send(b"\0" + frame.Frame(dice.randrange(16), dice.randrange(256), 0, junk).to_bytes())
        identity = await asker.hello()
        assert identity.boot == 1
        await _report_now(bench, asker)
    assert bench.boards[NAME].lives == []


async def test_noise_takes_no_answer_of_a_board_along(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(settings=SETTINGS, paced=False)
    async with asking(bench.lines[NAME].path) as asker:
        await asker.hello()
        for number in range(101, 104):
            answered = 0
            while answered != number:  # an answer to the hello before, late
                asker.hear(b"noise that no zero ends")
                answer = await asker.exchange(asker.clear(messages.Hello(number).to_bytes()), WITHIN_S)
                assert answer is not None
                answered = messages.message_of(answer.payload).number


async def test_sequence_and_chain_go_on_after_power_off_and_reset(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(settings=SETTINGS, paced=False)
    board = bench.boards[NAME]
    async with asking(bench.lines[NAME].path) as asker:
        await asker.enrol(NAME)
        await _report_now(bench, asker)
        for boot, start_again in enumerate(("power", "reset", "power"), 2):
            if start_again == "power":
                await board.power_off()
                await board.power_on()
            else:
                board.reset()
                await board.wait_for_life(len(board.lives))
            identity = await asker.hello()
            assert (identity.boot, identity.board) == (boot, NAME)
            made = await _report_now(bench, asker)
            assert (made.sequence, made.boot) == (boot, boot)


# A fault beside the firmware: as soon as this pin is low, nothing else runs any more.
HANGING_PIN = 15
HANGS = b"""
import asyncio
import machine

async def hang():
    pin = machine.Pin(15, machine.Pin.IN, machine.Pin.PULL_UP)
    while pin.value():
        await asyncio.sleep_ms(50)
    while True:
        pass

asyncio.create_task(hang())
start()
"""


async def test_the_watchdog_brings_a_board_back_that_hangs(emulated_boards: "Benches") -> None:
    files = image.firmware_files(image.find_firmware(), settings=SETTINGS)
    main = files["main.py"].replace(b"\nstart()\n", HANGS)
    assert main != files["main.py"]
    bench = await emulated_boards(files=files | {"main.py": main}, paced=False)
    board = bench.boards[NAME]
    async with asking(bench.lines[NAME].path) as asker:
        await asker.enrol(NAME)
        await _report_now(bench, asker)
        board.pins.drive(HANGING_PIN, 0)
        async with asyncio.timeout(WITHIN_S):
            life = await board.wait_for_life(0)
        board.pins.drive(HANGING_PIN, None)
        assert "watchdog" in life.ending.value
        await asker.hello()
        made = await _report_now(bench, asker)
        assert made.sequence >= 2
        assert made.boot >= 2


async def test_the_service_switch_stops_readings_and_what_waits_is_delivered(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(settings={"report_s": 3600, "sample_ms": 250}, paced=False)
    board = bench.boards[NAME]
    async with asking(bench.lines[NAME].path) as asker:
        await asker.enrol(NAME)
        await board.usb.wait_for_print("enrolled as")
        await _served(bench, bench.readings_served(NAME) + 12)
        board.pins.drive(SERVICE_PIN, 0)
        (made,) = await asker.wait_for_reports(1)
        readings = list(report_reading.readings_of(made))
        assert len(readings) == bench.readings_served(NAME)
        assert (await asker.poll()).waiting == 0
        board.pins.drive(SERVICE_PIN, None)
        await board.usb.wait_for_print("readings go on")
        await _served(bench, len(readings) + 4)


async def test_a_closed_service_switch_at_power_on_leaves_the_board_to_the_technician(
    emulated_boards: "Benches",
) -> None:
    bench = await emulated_boards(settings=SETTINGS, powered=False)
    board = bench.boards[NAME]
    board.pins.drive(SERVICE_PIN, 0)
    await bench.power_on()
    async with asyncio.timeout(WITHIN_S):
        await board.usb.wait_for_print("maintenance: the service switch is closed")
        await board.usb.wait_for_print(">>> ")
    assert not board.watchdog.running


@pytest.mark.parametrize("fault", [Fault.MISSING, Fault.SILENT, Fault.BAD_CRC])
async def test_a_failing_sensor_gives_missing_readings_and_comes_back(emulated_boards: "Benches", fault: Fault) -> None:
    bench = await emulated_boards(settings={"report_s": 3600, "sample_ms": 200}, paced=False)
    board = bench.boards[NAME]
    async with asking(bench.lines[NAME].path) as asker:
        await asker.enrol(NAME)
        await _served(bench, 8)  # the sensors were found
        probe = bench.sensors[NAME]["sht4x"].probe
        async with asyncio.timeout(WITHIN_S):
            probe.fault = fault
            await board.usb.wait_for_print("SHT4x at 0x44 fails")
            probe.fault = Fault.NONE
            await board.usb.wait_for_print("SHT4x at 0x44 works again")
        board.pins.drive(SERVICE_PIN, 0)
        (made,) = await asker.wait_for_reports(1)
        readings = list(report_reading.readings_of(made))
        for channel in (channels.TEMPERATURE, channels.HUMIDITY):
            flags = [flag for number, _, _, flag in readings if number == channel]
            assert report.MISSING in flags
            assert flags[-1] == report.GOOD
        assert all(flag == report.GOOD for channel, _, _, flag in readings if channel == channels.PRESSURE)
        assert sum(value is not None for _, _, value, _ in readings) == bench.readings_served(NAME)


async def test_a_sensor_that_was_there_once_is_missed_at_the_next_start(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(settings=SETTINGS, paced=False)
    board = bench.boards[NAME]
    async with asking(bench.lines[NAME].path) as asker:
        await asker.enrol(NAME)
        await _served(bench, 8)  # the sensors were found
        await board.power_off()
        bench.sensors[NAME]["bmp280"].probe.fault = Fault.MISSING
        await board.power_on()
        await _served(bench, bench.readings_served(NAME) + 6)
        made = await _report_now(bench, asker)
        flags = {flag for channel, _, _, flag in report_reading.readings_of(made) if channel == channels.PRESSURE}
        assert flags == {report.MISSING}


async def test_a_board_without_sensors_still_sends_its_empty_reports(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(settings=SETTINGS, paced=False, powered=False)
    bench.boards[NAME].buses[0].devices.clear()
    await bench.power_on()
    async with asking(bench.lines[NAME].path) as asker:
        await asker.enrol(NAME)
        (made,) = await asker.wait_for_reports(1)
        assert made.columns == []


async def test_a_board_whose_noise_input_is_shorted_says_so_and_works(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(settings=SETTINGS, paced=False, powered=False)
    board = bench.boards[NAME]
    board.pins.adc[NOISE_PIN] = lambda: 0
    await bench.power_on()
    async with asking(bench.lines[NAME].path) as asker:
        await asker.enrol(NAME)
        await _report_now(bench, asker)
    assert board.usb.printed().count("random numbers are made without the noise input") == 1
    assert board.lives == []


async def test_ticks_that_wrap_change_nothing(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(settings=SETTINGS, paced=False, powered=False)
    bench.boards[NAME].ticks_at_start_ms = (1 << 30) - 4000  # wraps in the middle of the first report
    await bench.power_on()
    async with asking(bench.lines[NAME].path) as asker:
        await asker.enrol(NAME)
        first, second = await asker.wait_for_reports(2)
        assert 4900 < second.closed_ms - first.closed_ms < 6500
        ages = [age for channel, age, *_ in report_reading.readings_of(first) if channel == channels.TEMPERATURE]
        assert ages == sorted(ages, reverse=True)
        assert 0 <= ages[-1] <= ages[0] < 6500


async def test_time_from_the_gateway_dates_reports_and_another_starts_time_does_not(
    emulated_boards: "Benches",
) -> None:
    bench = await emulated_boards(settings=SETTINGS, paced=False)
    async with asking(bench.lines[NAME].path) as asker:
        await asker.enrol(NAME)
        await asker.poll((2, 1_700_000_000_000, 9))
        made = await _report_now(bench, asker)
        assert made.clock == (report.NEVER_SET, None, 0)
        await asker.poll((1, 1_700_000_000_000, 9))
        made = await _report_now(bench, asker)
        assert made.clock[:2] == (report.SET, 1_700_000_000_000 + made.closed_ms)
        assert made.clock[2] >= 9


async def test_a_power_cut_costs_the_open_report_no_more_than_its_newest_draft_misses(
    emulated_boards: "Benches",
) -> None:
    # The firmware as it is, but a draft every half second instead of every 20: the test waits for two of them.
    quick = b"import reports\nreports.DRAFT_MS = 500\n"
    settings = {"report_s": 3600, "sample_ms": 250}
    files = image.firmware_files(image.find_firmware(), settings=settings, used_by=quick)
    bench = await emulated_boards(files=files | {"main.py": image.main_with(files["main.py"], quick)}, paced=False)
    board = bench.boards[NAME]
    async with asking(bench.lines[NAME].path) as asker:
        await asker.enrol(NAME)
        await asker.poll((1, 1_700_000_000_000, 9))
        await _served(bench, 40)  # two seconds and more: some drafts
        await board.power_off()
        taken = bench.readings_served(NAME)
        assert "/log/open" in image.names(board.flash.image, "/log")
        await board.power_on()
        found = await asker.wait_for_reports(1)
        assert [(made.sequence, made.boot, made.cut_ms) for made in found[:1]] == [(1, 1, 0)]
        # Its boot, ticks and time are those of the start that wrote it, not of the one that signed it.
        assert found[0].closed_ms > 500
        assert found[0].clock[:2] == (report.SET, 1_700_000_000_000 + found[0].closed_ms)
        kept = len(list(report_reading.readings_of(found[0])))
        assert 8 <= kept <= taken
        following = await _report_now(bench, asker)
        assert (following.sequence, following.boot, following.cut_ms) == (2, 2, 30_000)
        assert following.clock == (report.NEVER_SET, None, 0)
