"""`laterne-gateway check` asks every platform that the configuration names, and says what is wrong with it."""

import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from aiohttp import web
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import GatewayProcess
from tests.gateway.platform import sensorthings_server
from tests.gateway.test_command_line import in_thread
from tests.gateway.test_tls import Certificates
from tests.servers import Mosquitto, free_port


@contextlib.asynccontextmanager
async def http(answer: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    """Somebody's HTTP server. Its address."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        await web.SockSite(runner, listening).start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            await runner.cleanup()


async def answer(request: web.Request) -> web.Response:
    if request.path.startswith("/secret"):
        return web.json_response({"message": "who are you?"}, status=401)
    if request.path.startswith("/page"):
        return web.Response(text="<html>welcome</html>")
    if request.path.startswith("/plain"):
        settings = {"conformance": ["http://www.opengis.net/spec/iot_sensing/1.1/req/datamodel"]}
        return web.json_response({"value": [], "serverSettings": settings})
    return web.json_response({"hello": "world"})


def route(name: str, kind: str, url: str, more: str = "") -> str:
    return f'[[route]]\nname = "{name}"\nkind = "{kind}"\nurl = "{url}"\n{more}'


async def test_check_says_what_is_wrong_with_each_route(
    tmp_path: Path, mosquitto: Mosquitto, line_of: Callable[..., FakeLine]
) -> None:
    board = FakeBoard()
    gateway = GatewayProcess(tmp_path, [board], [line_of(board)], mosquitto)
    config = gateway.config.read_text()
    certificates = Certificates(tmp_path / "certificates")
    certificate, key = certificates.issue("elsewhere.example")
    port = free_port()
    tls = f"listener {port} 127.0.0.1\ncertfile {certificate}\nkeyfile {key}\n"
    strict = Mosquitto(tmp_path / "strict", f"{tls}allow_anonymous false\n")
    server = sensorthings_server(tmp_path / "city", is_strict=False)
    strict.start()
    server.start()
    try:
        async with http(answer) as url:
            gateway.config.write_text(
                config + route("city", "sensorthings", server.url) + route("flow", "civitas", mosquitto.url)
            )
            done = await in_thread("check", "--config", str(gateway.config))
            assert done.returncode == 0, done.stdout
            assert f"good: route city: {server.url}: is a SensorThings server" in done.stdout
            assert f"good: route flow: broker 127.0.0.1:{mosquitto.port}: lets us in" in done.stdout
            assert f"good: broker 127.0.0.1:{mosquitto.port}: lets us in" in done.stdout
            (note,) = [line for line in done.stdout.splitlines() if line.startswith("note: ")]
            assert note.startswith("note: route flow: CIVITAS/CORE makes no Datastreams")

            wrong = {
                "gone": (route("gone", "sensorthings", f"http://127.0.0.1:{free_port()}/v1.1"), "does not answer"),
                "secret": (route("secret", "sensorthings", f"{url}/secret/v1.1"), "correct username, header and secr"),
                "page": (route("page", "sensorthings", f"{url}/page/v1.1"), "the answer is no JSON: correct the url"),
                "other": (route("other", "sensorthings", f"{url}/other"), "this is no SensorThings service"),
                "plain": (route("plain", "sensorthings", f"{url}/plain/v1.1"), "which this route needs"),
                "lost": (route("lost", "sensorthings", f"{server.url}/no/such"), "404"),
                "badge": (route("badge", "civitas", strict.url), "does not let us in (Not authorized)"),
                "name": (
                    route("name", "civitas", f"mqtts://localhost:{port}", f'ca_file = "{certificates.ca}"\n'),
                    "its certificate is for another name",
                ),
                "file": (
                    route("file", "civitas", f"mqtts://localhost:{port}", 'prefix = "file"\nca_file = "gone.pem"\n'),
                    "gone.pem: No such file",
                ),
                "ca": (
                    route("ca", "civitas", f"mqtts://localhost:{port}", 'prefix = "ca"\n'),
                    "nobody we trust has signed",
                ),
                "web": (route("web", "civitas", url.replace("http", "mqtt")), "does it speak MQTT 5 there"),
            }
            gateway.config.write_text(config + "".join(text for text, _ in wrong.values()))
            done = await in_thread("check", "--config", str(gateway.config))
    finally:
        strict.stop()
        server.stop()
    assert done.returncode == 1
    assert "Traceback" not in done.stderr, done.stderr
    said = [one for one in done.stdout.splitlines() if one.startswith("WRONG")]
    assert len(said) == len(wrong)
    for line, (name, (_, words)) in zip(said, wrong.items(), strict=True):
        assert f"route {name}: " in line
        assert words in line


async def test_a_secret_that_every_user_of_the_machine_may_read_is_wrong(
    tmp_path: Path, mosquitto: Mosquitto, line_of: Callable[..., FakeLine]
) -> None:
    board = FakeBoard()
    gateway = GatewayProcess(tmp_path, [board], [line_of(board)], mosquitto)
    with tempfile.TemporaryDirectory(dir="/tmp") as made:  # the tests' own directory lets nobody else in
        password = Path(made) / "broker.password"
        password.write_text("secret")
        settings = f'[mqtt]\nusername = "gw-1"\npassword_file = "{password}"\n'
        gateway.config.write_text(gateway.config.read_text().replace("[mqtt]\n", settings))
        for place, secret, code in ((0o755, 0o644, 1), (0o755, 0o640, 0), (0o700, 0o644, 0)):
            Path(made).chmod(place)
            password.chmod(secret)
            done = await in_thread("check", "--config", str(gateway.config))
            assert done.returncode == code, done.stdout
            assert ("every user of this machine may read it" in done.stdout) == (code == 1)
