"""`laterne-gateway check`, the routes: is each platform there, is it who it should be, does it let us in?

A broker is asked for a connection under another name, so that the gateway that runs keeps its own. Nothing is sent.
"""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiomqtt
from paho.mqtt.reasoncodes import ReasonCode

from laterne_gateway.config import Config, MqttSettings
from laterne_gateway.route_settings import CivitasSettings, SensorThingsSettings
from laterne_gateway.routes.connection import Connection, cause_in_words, read_password
from laterne_gateway.routes.tls import certificate_words, tls_context

ANSWERS_WITHIN_S = 5.0  # each of name, connection and answer
UNAUTHORIZED = (401, 403)

Say = Callable[[str], bool]


def check_routes(config: Config, good: Say, wrong: Say) -> list[bool]:
    """Says for each route whether it can be used. What good() and wrong() returned."""
    with ThreadPoolExecutor(1) as thread:  # whoever calls may be in an event loop
        return thread.submit(lambda: asyncio.run(_all(config, good, wrong))).result()


async def _all(config: Config, good: Say, wrong: Say) -> list[bool]:
    name = f"laterne-{config.gateway.tenant}-{config.gateway.id}"
    found = [await _broker("[mqtt]", "broker", name, config.mqtt, good, wrong)]
    for route in config.routes:
        if isinstance(route, CivitasSettings):
            what = f"route {route.name}: broker"
            found.append(await _broker(f"route {route.name}:", what, f"{name}-{route.name}", route.mqtt, good, wrong))
            print(
                f"note: route {route.name}: CIVITAS/CORE makes no Datastreams: what it finds none for ends in its "
                "error sink although it counts as delivered here; a sensorthings route to it with the same prefix "
                "makes them, or its operator does"
            )
        else:
            found.append(await _sensorthings(route, good, wrong))
    return found


def _open_to_others(*files: Path | None) -> str | None:
    """What is wrong with secrets that every user of this machine may read."""
    for file in files:
        if file is None or not file.exists() or not file.stat().st_mode & 0o004:
            continue
        if all(folder.stat().st_mode & 0o001 for folder in file.absolute().parents):
            return (
                f"{file}: every user of this machine may read it: lay it in credentials/ beside the configuration, or "
                "give it to the gateway's user and chmod 600"
            )
    return None


async def _broker(table: str, what: str, name: str, settings: MqttSettings, good: Say, wrong: Say) -> bool:
    try:
        read_password(settings)
        context = tls_context(settings)
    except ssl.SSLError as why:
        return wrong(f"{table} ca_file, certificate_file or key_file: {why}: they must be PEM files that fit together")
    except (OSError, UnicodeDecodeError) as why:
        return wrong(f"{table} {cause_in_words(why)}: correct the path, or the rights of the file")
    opened = _open_to_others(settings.password_file, settings.key_file)
    if opened is not None:
        return wrong(f"{table} {opened}")
    if not settings.tls and settings.username:
        print(f'note: {table} the password goes to the broker readable for all on the way: use "mqtts://"')
    where = f"{what} {settings.host}:{settings.port}"
    unreachable = await _unreachable(settings.host, settings.port)
    if unreachable is not None:
        return wrong(f"{where}: {unreachable}")
    try:
        async with Connection(settings, f"{name}-check", None, context, session_expiry_s=0):
            return good(f"{where}: lets us in")
    except (aiomqtt.MqttError, OSError) as why:
        return wrong(f"{where}: {_refusal(why, settings)}")


def _refusal(why: Exception, settings: MqttSettings) -> str:
    certificate = certificate_words(why, time.time_ns() // 1_000_000)
    if certificate is not None:
        return certificate
    code = why.rc if isinstance(why, aiomqtt.MqttCodeError) else None
    if isinstance(code, ReasonCode):
        return f"does not let us in ({code}): correct username and password_file, or its rules"
    said = cause_in_words(why)
    if settings.tls and settings.certificate_file is None:
        return f"{said}: if it wants a certificate of this gateway, set certificate_file and key_file"
    other = "mqtt://" if settings.tls else "mqtts://"
    return f"{said}: does it speak MQTT 5 there, or is the url to begin with {other}?"


async def _unreachable(host: str, port: int) -> str | None:
    """Why nobody answers there; None: somebody does."""
    loop = asyncio.get_running_loop()
    try:
        addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as why:
        said = why.strerror if isinstance(why, OSError) else why
        return f"the name is not known ({said}): correct the url, or the DNS of this machine"
    try:
        async with asyncio.timeout(ANSWERS_WITHIN_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as why:
        said = os.strerror(why.errno) if why.errno else str(why) or f"nothing within {ANSWERS_WITHIN_S:.0f} s"
        return f"{addresses[0][4][0]} does not answer ({said}): is it up, does a firewall stop it?"
    writer.close()
    return None


async def _sensorthings(settings: SensorThingsSettings, good: Say, wrong: Say) -> bool:
    from urllib.parse import urlsplit

    from laterne_gateway.routes.sta_server import AwayError, FailedError, RefusedError, Server

    what = f"route {settings.name}: {settings.url}"
    opened = _open_to_others(settings.secret_file)
    if opened is not None:
        return wrong(f"route {settings.name}: {opened}")
    url = urlsplit(settings.url)
    unreachable = await _unreachable(url.hostname or "", url.port or (443 if url.scheme == "https" else 80))
    if unreachable is not None:
        return wrong(f"{what}: {unreachable}")
    server = Server(settings)
    try:
        async with server.connected(), asyncio.timeout(settings.answer_within_s):
            takes_arrays = await server.probe()
    except (AwayError, FailedError, RefusedError) as why:
        if getattr(why, "status", None) in UNAUTHORIZED:
            return wrong(f"{what}: does not let us in ({why}): correct username, header and secret_file, or its rules")
        return wrong(f"{what}: {why}")
    except TimeoutError:
        return wrong(f"{what}: no answer within {settings.answer_within_s} s")
    except (OSError, UnicodeDecodeError, ValueError) as why:  # ssl.SSLError is an OSError
        return wrong(f"route {settings.name}: secret_file or ca_file: {why}: correct the path, or the file's rights")
    if not takes_arrays:
        return wrong(f"{what}: does not say that it takes DataArrays, which this route needs")
    return good(f"{what}: is a SensorThings server")
