"""The peer: ThingsBoard Gateway (PyPI), set up as an operator would who wants nothing lost on its way.

MQTT connector in, SQLite storage, QoS 1 out to "ThingsBoard", which here is the same mosquitto that devices publish to.
Everything else is as the package brings it, but for what has no part in carrying readings: remote shell, remote
configuration and statistics are off, and it logs warnings only. Its storage syncs as it always does, which is less
than ours (WAL, synchronous=NORMAL), and it checks no signature. It lives in an environment of its own
(requirements-peer.lock).
"""

import json
import multiprocessing
import os
import subprocess
from pathlib import Path

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

REPOSITORY = Path(__file__).parents[2]
PROGRAM = REPOSITORY / ".peer" / "bin" / "thingsboard-gateway"
TELEMETRY = "v1/gateway/telemetry"
CHANNELS = ("temperature", "humidity", "pressure", "illuminance")
WINDOW = 100  # messages of the devices under way to the broker
FIRST_MS = 1_790_000_000_000
REPORT_MS = 60_000


def program() -> Path:
    """Where it is installed; LATERNE_PEER names another program. Raises FileNotFoundError: `make bench` installs it."""
    found = Path(os.environ.get("LATERNE_PEER", PROGRAM))
    if not found.exists():
        raise FileNotFoundError(f"{found}: ThingsBoard Gateway is not installed there: make bench does it")
    return found


class Devices:
    """What devices publish: the same readings as a street of our boards has, all encoded before anything is measured.

    A message with 4 readings is one object, {"ts", "temperature", ...}; one with more is an array of them.
    """

    def __init__(self, devices: int, messages_a_device: int, readings: int) -> None:
        self.readings = readings
        self.messages = devices * messages_a_device
        each = readings // len(CHANNELS)
        self._payloads: list[tuple[str, bytes]] = []
        for number in range(1, messages_a_device + 1):
            for device in range(1, devices + 1):
                points = [
                    {
                        "ts": FIRST_MS + number * REPORT_MS + REPORT_MS * index // each,
                        **{
                            name: 21.5 + position + (number * 7 + index * 3) % 11 / 100
                            for position, name in enumerate(CHANNELS)
                        },
                    }
                    for index in range(each)
                ]
                said = points[0] if each == 1 else points
                self._payloads.append((f"devices/LE-{device:04}/report", json.dumps(said).encode()))
        self._process: multiprocessing.process.BaseProcess | None = None

    def publish(self, port: int) -> None:
        """From a process of their own, at QoS 1, as fast as the broker takes it."""
        self._process = multiprocessing.get_context("fork").Process(target=self._publish, args=(port,), daemon=True)
        self._process.start()

    def end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.join()

    def _publish(self, port: int) -> None:
        client = Client(CallbackAPIVersion.VERSION2, "devices", protocol=MQTTProtocolVersion.MQTTv311)
        client.max_inflight_messages_set(WINDOW)
        client.connect("127.0.0.1", port)
        client.loop_start()
        sent = [client.publish(topic, payload, qos=1) for topic, payload in self._payloads]
        sent[-1].wait_for_publish()
        client.loop_stop()


class ThingsBoardGateway:
    """The process, with its configuration and storage in a folder."""

    def __init__(self, folder: Path, port: int) -> None:
        self.log = folder / "output.log"
        self._folder = folder
        for name, content in self._files(port).items():
            file = folder / "config" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(content))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> int:
        """Its process id."""
        environment = {**os.environ, "TB_GW_CONFIG_DIR": str(self._folder / "config")}
        for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
            environment.pop(name, None)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([program()], cwd=self._folder, env=environment, stdout=log, stderr=log)
        return self.process.pid

    def require_running(self) -> None:
        """Raises RuntimeError, with what it said last, when it has ended by itself."""
        if self.process is not None and self.process.poll() is not None:
            said = self.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{program()} ended with {self.process.returncode}: {said}")

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()  # SIGTERM: it takes half a minute to say goodbye, and nothing of it is measured
            self.process.wait()

    def _files(self, port: int) -> dict[str, object]:
        return {
            "tb_gateway.json": {
                "thingsboard": {
                    "host": "127.0.0.1",
                    "port": port,
                    "remoteShell": False,
                    "remoteConfiguration": False,
                    "statistics": {"enable": False},
                    "checkConnectorsConfigurationInSeconds": 60,
                    "maxPayloadSizeBytes": 8196,
                    "minPackSendDelayMS": 50,
                    "minPackSizeToSend": 500,
                    "security": {"type": "accessToken", "accessToken": "bench"},
                    "qos": 1,
                },
                "storage": {"type": "sqlite", "data_file_path": str(self._folder / "data") + "/"},
                "grpc": {"enabled": False},
                "connectors": [{"name": "devices", "type": "mqtt", "configuration": "mqtt.json"}],
            },
            "mqtt.json": {
                "broker": {
                    "host": "127.0.0.1",
                    "port": port,
                    "clientId": "connector",
                    "version": 5,
                    "maxMessageNumberPerWorker": 10,
                    "maxNumberOfWorkers": 100,
                    "security": {"type": "anonymous"},
                },
                "mapping": [
                    {
                        "topicFilter": "devices/+/report",
                        "subscriptionQos": 1,
                        "converter": {
                            "type": "json",
                            "deviceInfo": {
                                "deviceNameExpressionSource": "topic",
                                "deviceNameExpression": "(?<=devices/)(.*?)(?=/report)",
                                "deviceProfileExpressionSource": "constant",
                                "deviceProfileExpression": "lamp",
                            },
                            "timeout": 60000,
                            "attributes": [],
                            "timeseries": [
                                {"type": "double", "key": name, "value": f"${{{name}}}"} for name in CHANNELS
                            ],
                        },
                    }
                ],
            },
            "logs.json": {
                "version": 1,
                "disable_existing_loggers": False,
                "handlers": {"out": {"class": "logging.StreamHandler", "level": "WARNING"}},
                "root": {"level": "WARNING", "handlers": ["out"]},
            },
        }


def platform(topic: str) -> tuple[str, bytes] | None:
    """What ThingsBoard itself has to say before the gateway sends anything: that this tenant has no rate limits."""
    request = "v1/devices/me/rpc/request/"
    if not topic.startswith(request):
        return None
    limits = {"maxPayloadSize": 65536, "maxInflightMessages": 100, "rateLimits": {}, "gatewayRateLimits": {}}
    return topic.replace("request", "response"), json.dumps(limits).encode()


def points_in(payload: bytes) -> list[tuple[str, int, int]]:
    """What a message of the gateway to ThingsBoard carries: device, milliseconds, number of readings."""
    return [
        (device, point["ts"], len(point["values"]))
        for device, points in json.loads(payload).items()
        for point in points
    ]
