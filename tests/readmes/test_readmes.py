"""Every command in the READMEs is run, or it is said why not: one that was renamed, or lost an option, fails here."""

import asyncio
import contextlib
import functools
import io
import os
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.gateway.fake_board import FakeBoard as GatewayBoard
from tests.gateway.fake_board import FakeLine
from tests.gateway.fake_releases import release
from tests.gateway.parts import GatewayProcess
from tests.provisioning import forks
from tests.provisioning.fake_board import FakeBoard
from tests.provisioning.fake_gateway import FakeGateway
from tests.provisioning.test_labels import decoded, painted
from tests.readmes import operator
from tests.readmes.commands import BUILD, OURS, READMES, ROOT, Command, Place, commands, inline, stray, tomls_of
from tests.servers import Mosquitto

from laterne_gateway.__main__ import run_command
from laterne_gateway.config import load
from laterne_protocol import credential
from laterne_provisioning.authority import open_authority
from laterne_provisioning.output import base64url
from laterne_provisioning.words import words

TOP, GATEWAY, OPERATOR, RIG = (Path(name) for name in (
    "README.md", "gateway/README.md", "provisioning/README.md", "hil_tests/README.md"
))  # fmt: skip
NO_CA = (" --ca-file ca.pem", "")


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    (tmp_path / "place").mkdir()
    made = Place(tmp_path / "place")
    yield made
    await made.end()


async def play(readme: Path, place: Place) -> None:
    """All commands of a README in their order; every sentence of the tables must be about one of them."""
    found = commands(readme)
    texts = {command.text for command in found}
    tables = (
        *(place.exactly, place.elsewhere, place.cannot, place.strangers, place.codes),
        *(place.background, place.until, place.before),
    )
    assert [text for table in tables for text in table if text not in texts] == [], (
        "the README does not have it any more"
    )
    for command in found:
        if command.text in place.before:
            await place.before[command.text]()
        if command.text in place.elsewhere:
            is_given(command, place.elsewhere[command.text])
        elif command.text in place.cannot:
            exists(command)
        elif command.text not in place.strangers:
            await place.run(command)
    place.require_running()


def is_given(command: Command, where: str) -> None:
    """Another test gives this command, with these options."""
    file, _, function = where.partition("::")
    if command.program in OURS:
        known(command.text, str(command))
    if not function:
        former = [one for one in commands(Path(file)) if one.program == command.program]
        assert any(one.options >= command.options for one in former), f"{command}: not in {file}"
        return
    source = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(rf"^(async )?def {function}\(", source, re.MULTILINE), f"{command}: there is no {where}"
    if command.program in OURS:
        missing = [option for option in command.options if not re.search(rf"[\"']{option}[\"'=]", source)]
        assert missing == [], f"{command}: {file} gives no {', '.join(missing)}"


def exists(command: Command) -> None:
    """What no test gives must at least be there: a target with all that it needs, or a command with its options."""
    if command.program in OURS:
        known(command.text, str(command))
        return
    targets = re.findall(r"\bmake ([^&]+)", command.text)
    assert targets, f"{command}: name the test that gives it"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    for target in targets:
        done = subprocess.run(
            ["make", "--dry-run", "--directory", ROOT, *target.split()],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stderr}"


def known(text: str, where: str) -> None:
    """Whether there is such a command of ours, with these options; by its own help."""
    for one in text.split("&&"):
        path = re.match(r"(laterne(?:-gateway)?(?: [a-z][a-z-]*(?![\w./=|]))*)", one.strip())
        assert path is not None, where
        said = help_of(path[1])
        for option in re.findall(r"(?<=\s)--?[a-z][a-z-]*", one):
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", said), f"{where}: there is no {option}"


@functools.cache
def help_of(command: str) -> str:
    """What it says of itself; AssertionError: there is no such command."""
    program, *words = command.split()
    if program == "laterne":
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("COLUMNS", "200")  # no option is cut off
            done = forks.run([*words, "--help"])
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), pytest.raises(SystemExit) as ended:
        run_command([*words, "--help"])
    assert ended.value.code == 0, f"{command}: {said.getvalue()}"
    return said.getvalue()


@pytest.mark.parametrize("readme", READMES, ids=str)
def test_commands_stand_where_they_are_run(readme: Path) -> None:
    assert stray(readme) == [], (
        "begin their blocks with ```sh; who cannot be run here is named in a table, with the reason"
    )
    assert (commands(readme) == []) == (readme not in (TOP, GATEWAY, OPERATOR, RIG)), "give it a test here"


@pytest.mark.parametrize("readme", READMES, ids=str)
def test_commands_that_the_text_speaks_of_exist_with_their_options(readme: Path) -> None:
    for text in inline(readme):
        known(re.sub(r"[|(].*|…", "", text), f"{readme}: {text}")


@pytest.mark.parametrize("readme", READMES, ids=str)
def test_the_settings_that_a_readme_shows_are_those_that_a_gateway_takes(readme: Path, tmp_path: Path) -> None:
    """A block with [gateway] is a whole configuration, any other one belongs to the first of README.md."""
    assert len(tomls_of(readme)) == (ROOT / readme).read_text(encoding="utf-8").count("```toml")
    for text in tomls_of(readme):
        config = tmp_path / "gateway.toml"
        config.write_text(text if "[gateway]" in text else tomls_of(TOP)[0] + text, encoding="utf-8")
        load(config)


async def test_the_first_post_in_ten_minutes(mosquitto: Mosquitto, place: Place) -> None:
    """README.md: from nothing to a verified report, each command as it stands there; the ports are emulated."""
    street = await place.start(f"laterne emulate '{place.folder}/street' --boards 1 --blank")
    while not (place.folder / "street" / "control").exists():
        assert street.returncode is None
        await asyncio.sleep(0.05)
    place.instead = [
        ("/dev/ttyACM0", "street/board-01/usb"),
        ("/dev/ttyUSB0", "street/board-01/uart"),
        ("mqtts://broker:8883", mosquitto.url),
        ('\nca_file = "ca.pem"', ""),
        NO_CA,
        ("laterne release build", BUILD),
        ("--label LE-0001.pdf", "--label LE-0001.pdf --report-seconds 5 --sample-ms 500"),
        ("--seconds 120", "--seconds 12"),
    ]
    init = 'laterne init authority --name "Stadtwerke Musterstadt"'
    place.exactly = {init: f"{init} --no-passphrase"}
    place.codes = {"laterne flash": (0, 1)}  # 1: there is no board on this machine
    place.cannot = {
        "make demo": "runs until Ctrl-C, and sets up its own environment",
        "make test": "this is a test of it",
        "make setup && . .venv/bin/activate": "sets up its own environment",
    }
    service = (
        "tests/gateway/test_under_systemd.py::test_what_the_readme_says_to_an_operator_makes_a_service_that_delivers"
    )
    place.elsewhere = {command.text: service for command in commands(TOP) if command.program == "sudo"}
    place.background = ("laterne-gateway run --config gateway.toml",)
    public = "--trust trust.cbor --roster roster.cbor"
    verify = f"laterne verify --broker mqtts://broker:8883 --ca-file ca.pem {public} --seconds 120"
    place.until = ("laterne-gateway status --config gateway.toml", verify)
    (place.folder / "gateway.toml").write_text(place.here(tomls_of(TOP)[0]))
    await play(TOP, place)
    assert (place.folder / "LE-0001.pdf").read_bytes().startswith(b"%PDF")
    shows_the_label(next(said for text, said in place.said.items() if "--label LE-0001.pdf" in text), place.folder)


def shows_the_label(flashed: str, folder: Path) -> None:
    """What `laterne flash` has said: a code that a camera reads, and the words that a person compares."""
    with open_authority(folder / "authority").registry() as registry:
        board = registry.board("LE-0001")
    assert board is not None
    kid = credential.kid(board.sign_key)
    before, _, after = flashed.partition("LE-0001 is enrolled. Its label:\n")
    code, _, words_below = after.partition("LE-0001")
    assert "all were read back" in before
    text = f"laterne:LE-0001:{base64url(credential.thumbprint(board.sign_key))}"
    assert decoded(painted(code.splitlines())) == [text]
    assert words_below.splitlines() == [f"  {words(kid)}  {kid.hex()}", "To be printed: LE-0001.pdf"]


async def test_the_commands_of_the_gateway(tmp_path: Path, mosquitto: Mosquitto, place: Place) -> None:
    board = GatewayBoard()
    line = FakeLine(place.folder / "line", [board])
    gateway = GatewayProcess(place.folder, [board], [line], mosquitto)
    (place.folder / "r.laterne").write_bytes(release(gateway.authority).to_bytes())
    config = "--config gateway.toml"
    place.instead = [("/dev/ttyUSB0", "line")]
    place.codes = {f"laterne-gateway dead retry {config}": (1,)}  # there is none
    place.background = (f"laterne-gateway run {config}",)
    place.until = (f"laterne-gateway status {config}",)
    place.before = {f"laterne-gateway buffer vacuum {config}": place.end}
    try:
        await play(GATEWAY, place)
    finally:
        await line.close()
    assert (place.folder / "diag.tar.gz").exists()
    assert (place.folder / "image" / "etc" / "laterne" / "gateway.toml").exists()
    assert not list((place.folder / "image").rglob("*.service"))


async def test_the_commands_of_the_test_rig(place: Place) -> None:
    place.instead = [("DIR", "street")]
    emulate, blank = "laterne emulate DIR --boards 2", "laterne emulate DIR --boards 2 --blank"
    place.background = (emulate, blank)
    flash = (
        "laterne flash DIR/board-01/usb --release r.laterne --authority authority --id LE-0001 --line DIR/board-01/uart"
    )
    connect = "mpremote connect DIR/board-01/usb"
    place.exactly = {blank: blank.replace("DIR", "blank"), connect: f"{connect} exec 'print(6 * 7)'"}
    place.before = {connect: lambda: there(place, "blank")}
    place.instead = [("connect DIR", "connect blank"), *place.instead]
    one_case = "pytest hil_tests/test_x.py --fault-seed 7 --fault-case 12"
    sweep = ROOT / "hil_tests" / "test_gateways_that_start_together_make_each_entity_once.py"
    place.exactly[one_case] = one_case.replace("hil_tests/test_x.py", f"'{sweep}'")
    real = "pytest hil_tests/test_a_board_on_a_usb_port.py --board /dev/ttyACM0 --board-line /dev/ttyUSB0 -p no:xdist"
    rig = "hil_tests/test_a_rig_with_two_ports_runs_the_tests_of_a_board.py"
    runs = f"{rig}::test_all_tests_of_a_board_leave_a_new_one_new_and_refuse_one_in_service"
    place.elsewhere = {flash: "README.md", real: runs}
    place.cannot = {"LATERNE_FAULTS=20 LATERNE_SEED=random make test ARGS=...": "takes hours"}
    await play(RIG, place)


async def there(place: Place, name: str) -> None:
    """The emulator that was started in this folder serves."""
    while not (place.folder / name / "control").exists():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.05)


IDS = ("LE-0001", "LE-0002", "LE-0003", "LE-0004", "LE-0005", "LE-0031", "LE-0101")
ENROL = "laterne board enrol --port"


def pending(*ids: str) -> str:
    return " && ".join(f"{ENROL} {{{board}}} --id {board} --authority authority --pending" for board in ids)


async def test_the_commands_of_operator_and_technician(mosquitto: Mosquitto, place: Place) -> None:
    """provisioning/README.md in one go, as the year of one authority."""
    boards = {name: FakeBoard() for name in IDS}
    with contextlib.ExitStack() as stack:
        for board in boards.values():
            stack.enter_context(board)
        at_port = f"{ENROL} /dev/ttyUSB0 --id LE-0001 --authority authority"
        post = "--post P-17 --latitude 48.1374 --longitude 11.5755"
        place.instead = [
            *((f"{{{name}}}", board.port) for name, board in boards.items()),
            ("mqtts://broker:8883", mosquitto.url),
            NO_CA,
            ("file2:/media/a/", "file2:keys/"),
            ("file2:/media/b/", "file2:keys/"),
            ("/media/stick/", "stick/"),
        ]
        place.exactly = operator.EXACTLY | {
            f"{at_port} {post}": f"{ENROL} {{LE-0001}} --id LE-0001 --authority authority {post}",
            f"{at_port} --pending": pending("LE-0004", "LE-0005"),
            'laterne board accept LE-0001 --authority authority --words "roskar-wirsil-gissol-lelvin"': (
                f'laterne board accept LE-0004 --authority authority --words "{words(boards["LE-0004"].kid)}"'
            ),
        }
        place.elsewhere, place.strangers = operator.ELSEWHERE, operator.STRANGERS
        place.codes = operator.CODES
        place.background = operator.BACKGROUND
        place.until = operator.UNTIL
        rotate = next(text for text in operator.EXACTLY if text.startswith("laterne board rotate"))
        reports = "laterne verify reports.cbor --authority authority"

        async def serve() -> None:
            stack.enter_context(FakeGateway(mosquitto, boards["LE-0002"]))

        async def write_reports() -> None:
            body = boards["LE-0003"].next_report()
            (place.folder / "reports.cbor").write_bytes(body + boards["LE-0003"].next_report())

        async def plug_in() -> None:
            await place.start("laterne emulate box --blank --instant-flash")
            await place.start("laterne emulate shelf --instant-flash")
            await there(place, "box")
            for one in operator.BOX_RELEASE:
                await place.run(Command(OPERATOR, 0, one))

        async def begun() -> None:
            while not list(place.folder.glob("authority/campaigns/*/journal")):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)

        place.before = {
            rotate: serve,
            reports: write_reports,
            operator.COUNTED: plug_in,
            operator.WATCHED: begun,
        }
        (place.folder / "stick").mkdir()
        rows = [
            f"{name},{boards[name].port},{post}"
            for name, post in (("LE-0002", "P-18"), ("LE-0003", "P-19"), ("LE-0031", ""))
        ]
        (place.folder / "boards.csv").write_text("\n".join(["id,port,post", *rows]) + "\n")
        (place.folder / "gateway.toml").write_text(tomls_of(TOP)[0])
        await play(OPERATOR, place)
