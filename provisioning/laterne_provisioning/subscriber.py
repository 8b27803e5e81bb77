"""An MQTT 5 broker: how it is named and reached, and reports from it as they come, until told to stop.

The broker keeps our session while we are away for less than SESSION_S, so that an outage loses nothing.
"""

import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from laterne_protocol import fields
from laterne_protocol.errors import ObjectError
from laterne_provisioning.errors import OperatorError, UsageError

if TYPE_CHECKING:
    import ssl

    from paho.mqtt.properties import Properties

TOPIC = "laterne/v1/+/+/+/report"
_BOARD_LEVEL = 4
# Of what we hear: the longest, a report, has 960 bytes and its topic. A broker drops what is longer (MQTT 5,
# 3.1.2.11.4); without this it would hand us 256 MB of whoever may write below any gateway's name.
MAX_PACKET_BYTES = 4096
MAX_WAITING = 10_000  # messages that wait to be looked at: 40 MB at the most
SESSION_S = 300  # an outage that a person would wait out
CONNECT_WITHIN_S = 10.0
# Exponential backoff with full jitter (AWS Architecture Blog, 2015).
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 15.0


@dataclass(frozen=True)
class Broker:
    """Where and how to subscribe. tls: None for mqtt://."""

    host: str
    port: int
    tls: "ssl.SSLContext | None"
    user: str | None
    password: str | None

    def __str__(self) -> str:
        return f"{'mqtt' if self.tls is None else 'mqtts'}://{self.host}:{self.port}"


@dataclass(frozen=True)
class Credentials:
    """The options that say who we are and whom we believe; all of them paths or names, never secrets."""

    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    user: str | None = None
    password_file: Path | None = None


def broker_of(url: str, credentials: Credentials) -> Broker:
    """The broker that the options describe. Raises UsageError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as why:
        raise UsageError(f"{url!r} is no broker ({why}): give mqtt://HOST:PORT or mqtts://HOST:PORT.") from why
    if parts.scheme not in ("mqtt", "mqtts") or not host or parts.path not in ("", "/") or parts.query:
        raise UsageError(f"{url!r} is no broker: give mqtt://HOST:PORT or mqtts://HOST:PORT.")
    if parts.username is not None or parts.password is not None:
        raise UsageError("A broker's URL carries no user and no password: give --user and --password-file.")
    secure = parts.scheme == "mqtts"
    if not secure and (credentials.ca_file or credentials.certificate or credentials.key):
        raise UsageError("--ca-file, --certificate and --key belong to mqtts://: correct the broker's URL.")
    password = None
    if credentials.password_file is not None:
        try:
            password = credentials.password_file.read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as why:
            raise UsageError(f"The password file cannot be read: {credentials.password_file}: {why}.") from why
    tls = _tls(credentials) if secure else None
    return Broker(host, port or (8883 if secure else 1883), tls, credentials.user, password)


def _tls(credentials: Credentials) -> "ssl.SSLContext":
    import ssl

    try:
        context = ssl.create_default_context(cafile=credentials.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if credentials.certificate is not None:
            context.load_cert_chain(credentials.certificate, credentials.key)
        elif credentials.key is not None:
            raise UsageError("--key belongs to a --certificate: give both.")
    except (OSError, ssl.SSLError) as why:
        files = (credentials.ca_file, credentials.certificate, credentials.key)
        missing = [str(file) for file in files if file is not None and not file.is_file()]
        if missing:  # ssl does not say which
            raise UsageError(f"There is no file {', '.join(missing)}: check --ca-file, --certificate, --key.") from why
        raise UsageError(
            f"The files for TLS cannot be used ({why}): check --ca-file, --certificate and --key."
        ) from why
    return context


def properties(session_s: int) -> "Properties":
    """Of a connection: how long the broker keeps our session, and the longest packet that we take."""
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    made = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's has no types
    made.SessionExpiryInterval = session_s
    made.MaximumPacketSize = MAX_PACKET_BYTES
    return made


def unreachable(broker: Broker, why: Exception) -> OperatorError:
    """Why a connection did not come about, and what to do."""
    import ssl

    cause = why.__context__  # aiomqtt raises its own, which holds only the text
    if isinstance(cause, ssl.SSLCertVerificationError):
        said = cause.verify_message.rstrip(".")
        return OperatorError(
            f"{broker} shows a certificate that is not believed: {said}. Is it this address? Who signs "
            "its certificates is named by --ca-file."
        )
    told = cause.strerror if isinstance(cause, OSError) and cause.strerror else why
    return OperatorError(f"{broker} cannot be used: {told}. Is the broker running, is it this address?")


def board_of(topic: str) -> str | None:
    """The board that a topic names; None when what stands there is no board's id."""
    try:
        return fields.board_id(topic.split("/")[_BOARD_LEVEL])
    except (IndexError, ObjectError):
        return None


async def listen(
    broker: Broker,
    topic: str,
    on_subscribed: Callable[[], None],
    on_message: Callable[[str, bytes], None],
    on_passed_over: Callable[[], None],
    say: Callable[[str], None],
) -> None:
    """Subscribe and hand over every message, for ever: cancel it to stop.

    on_subscribed: called once, when the broker has confirmed. on_message: the topic, a stranger's text, and
    the payload. on_passed_over: called for each message that is lost because MAX_WAITING others wait. say: told of
    outages. Raises OperatorError: the broker cannot be reached at the start, or refuses us.
    """
    # Here and not above: most commands read of a broker in their options, and speak to none.
    import asyncio

    import aiomqtt

    class Waiting(asyncio.Queue[aiomqtt.Message]):
        # aiomqtt throws away what a full queue does not take: it shall be counted.
        def put_nowait(self, item: aiomqtt.Message) -> None:
            if self.full():
                on_passed_over()
                return
            super().put_nowait(item)

    client = aiomqtt.Client(
        broker.host,
        broker.port,
        identifier=f"laterne-verify-{secrets.token_hex(6)}",
        protocol=aiomqtt.ProtocolVersion.V5,
        clean_start=False,  # nobody has had this identifier before
        properties=properties(SESSION_S),
        tls_context=broker.tls,
        username=broker.user,
        password=broker.password,
        timeout=CONNECT_WITHIN_S,
        max_queued_incoming_messages=MAX_WAITING,
        queue_type=Waiting,
    )
    subscribed = False
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            async with client:
                # The broker may have forgotten us meanwhile: subscribing again costs one packet.
                answer = await client.subscribe(topic, qos=1)
                if any(getattr(code, "value", code) >= 128 for code in answer):
                    raise OperatorError(
                        f"{broker} does not let us subscribe to {topic}: {answer[0]}. Ask for the right."
                    )
                if not subscribed:
                    on_subscribed()
                    subscribed = True
                pause_s = FIRST_PAUSE_S
                async for message in client.messages:
                    payload = message.payload
                    on_message(message.topic.value, payload if isinstance(payload, bytes) else b"")
        except aiomqtt.MqttError as why:
            if not subscribed:
                raise unreachable(broker, why) from why
            say(f"{broker} is away ({why}): trying again")
        await asyncio.sleep(random.uniform(0, pause_s))
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
