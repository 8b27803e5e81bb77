"""TLS to a real broker: certificates on both ends, and a broker that is not who it should be."""

import asyncio
import datetime
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import GatewayProcess, parts, until
from tests.gateway.test_buffer import accepted
from tests.servers import Mosquitto, free_port

from laterne_gateway.clock import SystemClock
from laterne_gateway.config import MqttSettings
from laterne_gateway.routes import mqtt, tls

MakeLine = Callable[..., FakeLine]


class Certificates:
    """A certificate authority for tests only, in PEM files. ca: its own certificate."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's authority")])
        self.ca = directory / "ca.pem"
        made = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        self.ca.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, begins_s: float = -86_400.0, ends_s: float = 86_400.0
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(seconds=begins_s))
            .not_valid_after(now + datetime.timedelta(seconds=ends_s))
        )

    def issue(self, name: str, begins_s: float = -86_400.0, ends_s: float = 86_400.0) -> tuple[Path, Path]:
        """Certificate and key for a DNS name. Valid from and to: so many seconds from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key, begins_s, ends_s)
        made = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False)
        certificate, private = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        certificate.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate, private


class TlsBroker:
    """Mosquitto with a listener that speaks TLS and wants a certificate."""

    def __init__(self, directory: Path, server: tuple[Path, Path], ca: Path) -> None:
        port = free_port()
        self.url = f"mqtts://localhost:{port}"
        self.broker = Mosquitto(
            directory,
            f"listener {port} 127.0.0.1\ncafile {ca}\ncertfile {server[0]}\nkeyfile {server[1]}\n"
            "require_certificate true\n",
        )


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path / "certificates")


@pytest.fixture
def start_broker(tmp_path: Path, certificates: Certificates) -> Iterator[Callable[[tuple[Path, Path]], TlsBroker]]:
    started: list[Mosquitto] = []

    def start(server: tuple[Path, Path]) -> TlsBroker:
        made = TlsBroker(tmp_path / "broker", server, certificates.ca)
        made.broker.start()
        started.append(made.broker)
        return made

    yield start
    for broker in started:
        broker.stop()


def gateway_with_tls(
    tmp_path: Path, board: FakeBoard, line: FakeLine, tls: TlsBroker, ca: Path, own: tuple[Path, Path] | None
) -> GatewayProcess:
    gateway = GatewayProcess(tmp_path, [board], [line], tls.broker)
    settings = f'url = "{tls.url}"\nca_file = "{ca}"'
    if own is not None:
        settings += f'\ncertificate_file = "{own[0]}"\nkey_file = "{own[1]}"'
    gateway.config.write_text(gateway.config.read_text().replace(f'url = "{tls.broker.url}"', settings))
    return gateway


async def test_reports_cross_tls_with_certificates_on_both_ends_and_verify_hears_them_there(
    tmp_path: Path,
    certificates: Certificates,
    start_broker: Callable[[tuple[Path, Path]], TlsBroker],
    line_of: MakeLine,
) -> None:
    broker = start_broker(certificates.issue("localhost"))
    board = FakeBoard()
    board.close_reports(3)
    gateway = gateway_with_tls(
        tmp_path, board, line_of(board), broker, certificates.ca, certificates.issue("gw-1.example")
    )
    # It has no certificate of its own, so it listens at the other door; that it hears all shows what came through.
    verify = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("laterne"), "verify", "--broker", broker.broker.url, "--json-lines",
        "--trust", tmp_path / "trust.cbor", "--roster", tmp_path / "roster.cbor", stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert verify.stdout is not None
        assert json.loads(await verify.stdout.readline())["event"] == "subscribed"
        await gateway.start()
        heard = [json.loads(await verify.stdout.readline()) for _ in range(3)]
        assert [(one["ok"], one["sequence"]) for one in heard] == [(True, 1), (True, 2), (True, 3)]
        await board.forgets(3)
    finally:
        verify.terminate()
        await verify.communicate()
        await gateway.end()


MISTAKES = {
    "another authority": "nobody we trust has signed its certificate",
    "another name": "its certificate is for another name",
    "expired": "its certificate has expired",
    "not valid yet": "its certificate is not valid yet, and this machine's clock says 20",
    "no certificate of ours": "set certificate_file and key_file",
    "a file that is gone": "gone.pem: No such file or directory; reports are kept",
    "nobody listens": ": Connection refused; reports are kept",  # no number, and no guess about certificates
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_broker_that_is_not_who_it_should_be_gets_nothing_and_it_is_said(
    tmp_path: Path,
    certificates: Certificates,
    start_broker: Callable[[tuple[Path, Path]], TlsBroker],
    line_of: MakeLine,
    mistake: str,
) -> None:
    times = {"expired": (-7200.0, -3600.0), "not valid yet": (3600.0, 7200.0)}.get(mistake, (-3600.0, 3600.0))
    name = "elsewhere.example" if mistake == "another name" else "localhost"
    broker = start_broker(certificates.issue(name, *times))
    board = FakeBoard()
    board.close_reports(2)
    ca = Certificates(tmp_path / "strangers").ca if mistake == "another authority" else certificates.ca
    ca = tmp_path / "gone.pem" if mistake == "a file that is gone" else ca
    own = None if mistake in ("no certificate of ours", "nobody listens") else certificates.issue("gw-1.example")
    if mistake == "nobody listens":
        broker.broker.stop()
    gateway = gateway_with_tls(tmp_path, board, line_of(board), broker, ca, own)
    try:
        await gateway.start()
        await board.forgets(2)  # the boards' data are safe all the while
        await gateway.says(MISTAKES[mistake])
        found = gateway.status()
        assert found is not None
        assert isinstance(found["buffer"], dict)
        assert found["buffer"]["waiting"] == {"mqtt": 2}
        assert "Traceback" not in gateway.said()
        assert ": connected" not in gateway.said()
    finally:
        await gateway.end()


class UnsetClock(SystemClock):
    """Of a machine that has started in 1970."""

    def utc_ms(self) -> int | None:
        return None


# paho leaves the socket of a failed handshake to the garbage collector, which closes it.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")
async def test_a_gateway_that_starts_in_1970_connects_as_soon_as_the_clock_is_set(
    tmp_path: Path,
    certificates: Certificates,
    start_broker: Callable[[tuple[Path, Path]], TlsBroker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """OpenSSL's clock is this machine's, so the certificate comes to the clock: it becomes valid in two seconds."""
    monkeypatch.setattr(mqtt, "BASE_S", 3600.0)  # its pauses are long by now
    monkeypatch.setattr(tls, "UNDATED_AGAIN_S", 0.2)
    broker = start_broker(certificates.issue("localhost", 2.0))
    own = certificates.issue("gw-1.example")
    async with parts(tmp_path) as gateway:
        await gateway.buffer.put(accepted(FakeBoard(), 1))
        gateway.clock = UnsetClock()
        host, port = "localhost", int(broker.url.rpartition(":")[2])
        settings = MqttSettings(host, port, True, None, None, certificates.ca, *own, 20)
        known = (gateway.buffer, gateway.orders, gateway.updates, gateway.clock, gateway.health, gateway.dates)
        running = asyncio.create_task(mqtt.MqttRoute(gateway.settings, settings, *known).run())
        try:
            await until(lambda: gateway.health.counted("route mqtt", "connections failed") >= 2)
            alarms = gateway.health.snapshot()["route mqtt"]["alarms"]
            assert "not valid yet, and this machine's clock says" in str(alarms)
            assert gateway.buffer.waiting("mqtt") == 1
            await until(lambda: not gateway.buffer.waiting("mqtt"))
            assert not gateway.health.snapshot()["route mqtt"]["alarms"]
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
