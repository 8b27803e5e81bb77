"""Configuration errors: each a sentence with file, line, setting and what to do."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from laterne_gateway.config import BufferSettings, ConfigError, load
from laterne_gateway.route_settings import CivitasSettings, SensorThingsSettings

GOOD = """\
[gateway]
id = "gw-1"
tenant = "testingen"
directory = "state"
trust = "trust.cbor"
roster = "roster.cbor"
credential = "gateway.cbor"

[mqtt]
url = "mqtt://broker.example"

[[line]]
name = "north"
path = "/dev/ttyS0"

[[line]]
name = "south"
path = "/dev/ttyS1"
baud = 19200
boards = [1, 2, 32]
"""

ROUTE = '[1]\n[[route]]\nname = "city"\nkind = "sensorthings"\n'
TWICE = ROUTE + 'url = "http://c/v1.1"' + ROUTE[3:].replace("city", "town") + 'url = "http://c/v1.1/"'
CIVITAS = '[1]\n[[route]]\nname = "city"\nkind = "civitas"\n'

WRONG = [
    # (what is replaced, by what, line, what the sentence must hold)
    ('id = "gw-1"', 'id = "gw 1"', 2, ["[gateway] id", "gw 1", "roster export"]),
    ('id = "gw-1"', "", 1, ["[gateway]", '"id" is missing']),
    ('id = "gw-1"', "id = 7", 2, ["[gateway] id", "not a text"]),
    ('tenant = "testingen"', 'tenant = "a/b"', 3, ["[gateway] tenant", "a/b"]),
    ('tenant = "testingen"', 'tennant = "x"', 3, ["[gateway] tennant", "not a setting", "correct its name"]),
    ('url = "mqtt://broker.example"', 'url = "http://broker"', 10, ["[mqtt] url", "mqtts://host:8883"]),
    ('url = "mqtt://broker.example"', 'url = "mqtt://me:word@broker"', 10, ["[mqtt] url", "password_file"]),
    ('url = "mqtt://broker.example"', 'url = "mqtt://broker:99999"', 10, ["[mqtt] url"]),
    ('url = "mqtt://broker.example"', 'password = "x"\nurl = "mqtt://b"', 10, ["[mqtt] password", "not a setting"]),
    ('url = "mqtt://broker.example"', 'url = "mqtt://b"\nin_flight = 0', 11, ["[mqtt] in_flight", "1..1000"]),
    ('url = "mqtt://broker.example"', 'url = "mqtt://b"\nca_file = "ca.pem"', 11, ["[mqtt] ca_file", "mqtts://"]),
    ('url = "mqtt://broker.example"', 'url = "mqtts://b"\nkey_file = "k.pem"', 9, ["belong together"]),
    ('url = "mqtt://broker.example"', 'url = "mqtt://b"\npassword_file = "p"', 11, ["needs a username"]),
    ("[1, 2, 32]", "[1, 2]\n[buffer]\nmax_mib = 15", 22, ["[buffer] max_mib", "16..", "1024"]),
    ("[1, 2, 32]", "[1, 2]\n[buffer]\nmax_days = 0", 22, ["[buffer] max_days", "leave it out"]),
    ("[1, 2, 32]", '[1, 2]\n[buffer]\nwhen_full = "burn"', 22, ["[buffer] when_full", "refuse, drop oldest"]),
    ("[1, 2, 32]", "[1, 2]\n[buffer]\nmax = 7", 22, ["[buffer] max", "not a setting"]),
    ("baud = 19200", "baud = 300", 19, ["[[line]] baud", "1200..4000000"]),
    ("baud = 19200", "baud = true", 19, ["[[line]] baud"]),
    ("baud = 19200", 'parity = "even"', 19, ["[[line]] parity", "not a setting"]),
    ("[1, 2, 32]", "[1, 33]", 20, ["[[line]] boards", "1..32"]),
    ("[1, 2, 32]", "[1, 1]", 20, ["[[line]] boards", "once"]),
    ("[1, 2, 32]", "[]", 20, ["[[line]] boards", "leave it out"]),
    ("[1, 2, 32]", "7", 20, ["[[line]] boards"]),
    ('name = "south"', 'name = "north"', 17, ["[[line]] name", "stands twice"]),
    ("/dev/ttyS1", "/dev/ttyS0", 18, ["[[line]] path", '"north" has this port']),
    ("[mqtt]", "[mqqt]", 9, ["mqqt", "not a setting"]),
    ("[mqtt]", 'colour = "red"\n[mqtt]', 9, ["[gateway] colour"]),
    ("[1, 2, 32]", '[1]\n[[route]]\nkind = "sensorthings"', 21, ["[[route]]", '"name" is missing']),
    ("[1, 2, 32]", '[1]\n[[route]]\nname = "city"', 21, ["[[route]]", '"kind" is missing', "sensorthings, civitas"]),
    ("[1, 2, 32]", '[1]\n[[route]]\nname = "c"\nkind = "ngsi"', 23, ["[[route]] kind", "give one of"]),
    ("[1, 2, 32]", ROUTE + 'url = "ftp://c"', 24, ["[[route]] url", "v1.1"]),
    ("[1, 2, 32]", ROUTE + 'url = "http://me:word@c"', 24, ["[[route]] url", "secret_file"]),
    ("[1, 2, 32]", ROUTE + 'url = "http://c"\nlevel = "sent"', 25, ["[[route]] level", "accepted, stored"]),
    ("[1, 2, 32]", ROUTE + 'url = "http://c"\nusername = "me"', 25, ["[[route]] username", "secret_file"]),
    ("[1, 2, 32]", ROUTE + 'url = "http://c"\nca_file = "ca"', 25, ["[[route]] ca_file", "https://"]),
    ("[1, 2, 32]", ROUTE + 'url = "http://c"\nrows = 0', 25, ["[[route]] rows", "1..1000"]),
    ("[1, 2, 32]", ROUTE + 'url = "http://c"\ntopic = "a"', 25, ["[[route]] topic", "not a setting"]),
    ("[1, 2, 32]", ROUTE.replace("city", "mqtt") + 'url = "http://c"', 22, ["[[route]] name", "another route's"]),
    ("[1, 2, 32]", CIVITAS + 'url = "mqtt://b"\ntopic = "a/#"', 25, ["[[route]] topic", "sensors/sta"]),
    ("[1, 2, 32]", TWICE, 28, ["[[route]] url", 'route "city"', "twice"]),
    ("[1, 2, 32]", CIVITAS + 'url = "http://b"', 24, ["[[route]] url", "mqtts://host:8883"]),
    ("[1, 2, 32]", CIVITAS + 'url = "mqtt://b"\nrows = 5', 25, ["[[route]] rows", "not a setting"]),
    ("[1, 2, 32]", ROUTE + 'url = "http://c"\nsecret_file = "s"\nheader = "X: 1"', 26, ["header", "secret_file"]),
    ('path = "/dev/ttyS1"', 'path = "/dev/tty\\u0000"', 18, ["[[line]] path", "control character"]),
    ("[1, 2, 32]", "[1, 2" + "0" * 5000 + "]", 20, ["not TOML"]),
    ("[1, 2, 32]", "[1, 2", 20, ["not TOML", "correct that line"]),
]


@pytest.mark.parametrize(("before", "after", "line", "sentence"), WRONG)
def test_a_wrong_setting_is_told_with_file_line_setting_and_remedy(
    tmp_path: Path, before: str, after: str, line: int, sentence: list[str]
) -> None:
    assert before in GOOD
    file = tmp_path / "gateway.toml"
    file.write_text(GOOD.replace(before, after))
    with pytest.raises(ConfigError) as caught:
        load(file)
    told = [problem for problem in caught.value.problems if all(part in problem for part in sentence)]
    assert len(told) == 1, caught.value.problems
    assert told[0].startswith(f"{file}:{line}: ")


def test_a_good_file_gives_paths_beside_itself_and_default_values(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(GOOD)
    config = load(file)
    assert config.gateway.roster == tmp_path / "roster.cbor"
    assert config.lines[0].boards == ()
    assert config.lines[0].baud == 115_200
    assert config.lines[1].boards == (1, 2, 32)
    assert (config.mqtt.host, config.mqtt.port, config.mqtt.tls) == ("broker.example", 1883, False)


def test_the_buffer_s_bounds_are_read(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(GOOD)
    assert load(file).buffer == BufferSettings(1024, None, "refuse", 0)
    file.write_text(GOOD + '[buffer]\nmax_mib = 16\nmax_days = 3\nwhen_full = "drop oldest"\ngather_s = 5\n')
    assert load(file).buffer == BufferSettings(16, 3, "drop oldest", 5)


def test_routes_are_read_with_their_defaults(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(
        GOOD + '[[route]]\nname = "city"\nkind = "sensorthings"\nurl = "https://c/v1.1"\nsecret_file = "token"\n'
        '[[route]]\nname = "core"\nkind = "civitas"\nurl = "mqtts://b"\n'
    )
    config = load(file)
    city, core = config.routes
    assert isinstance(city, SensorThingsSettings)
    assert (city.level, city.rows, city.secret_file) == ("accepted", 100, tmp_path / "token")
    assert isinstance(core, CivitasSettings)
    assert (core.topic, core.max_bytes, core.mqtt.tls) == ("sensors/sta", 8000, True)
    assert config.route_names == ("mqtt", "city", "core")


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(GOOD.replace("gw-1", "gw 1").replace("19200", "1").replace("[1, 2, 32]", "[0]"))
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert len(caught.value.problems) == 3


def test_brackets_without_an_end_are_a_problem_and_not_the_gateway_s_end(tmp_path: Path) -> None:
    """A running gateway reads it, too, at SIGHUP."""
    file = tmp_path / "gateway.toml"
    file.write_text(GOOD.replace("[1, 2, 32]", "[" * 20_000))
    assert "remove them" in problems_in(file)[0]


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "nothing.toml")


def test_an_empty_file_says_which_tables_are_missing(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("")
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert [problem.split(": ")[1] for problem in caught.value.problems] == ["[gateway]", "[[line]]", "[mqtt]"]


def test_the_example_file_is_good() -> None:
    example = Path(__file__).parents[2] / "gateway" / "laterne-gateway.example.toml"
    assert load(example).gateway.id


NASTY = st.sampled_from(
    ['""', "-1", "0", "1e400", "nan", "true", "1979-05-27", "[]", "{}", "[[1]]", '[1, "a"]', '"\\u0000"', "{ a = {} }",
     '"' + "a" * 5000 + '"', "9" * 30, '"mqtt://[::1"', '"https://x:99999/"', '"../.."']
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 40), st.one_of(NASTY, st.text(max_size=20), st.none())), max_size=4))
def test_whatever_somebody_types_is_a_configuration_or_a_list_of_problems(
    tmp_path: Path, changes: list[tuple[int, str | None]]
) -> None:
    """A line gets another value, or other text behind it, or goes."""
    lines = (GOOD + ROUTE.removeprefix("[1]\n") + 'url = "https://p.example/v1.1"\n').splitlines()
    for number, change in changes:
        at = number % len(lines)
        name, equals, _ = lines[at].partition(" = ")
        lines[at] = "" if change is None else f"{name}{equals}{change}" if equals else lines[at] + change
    file = tmp_path / "gateway.toml"
    file.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    problems = problems_in(file)
    assert all(problem.startswith(str(file)) for problem in problems)
    assert sum(map(len, problems)) < 20_000


def problems_in(file: Path) -> list[str]:
    try:
        load(file)
    except ConfigError as why:
        return why.problems or ["none is named"]
    return []
