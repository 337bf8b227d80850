"""`KafkaServer`: one Kafka node, broker and controller in one process, with the life of a test."""

import base64
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kafka_server.distribution import find_jars, find_java
from tests.server_process import (
    HOST,
    PORT_ATTEMPTS,
    START_TIMEOUT_SEC,
    ServerError,
    ServerProcess,
    begun_on_free_ports,
    free_port,
)

PLAIN_USER = ("app1", "app1-secret")
"""Name and password known to the SASL listener's PLAIN mechanism."""
SCRAM_USER = ("app2", "app2-secret")
"""Name and password known to the SASL listener's SCRAM-SHA-256 mechanism."""

_STARTED = "Kafka Server started"


class KafkaServer:
    """A single Kafka node on free ports of loopback.

    `start` after `stop` or `kill` goes on with the same data on the same ports; `close` ends it and removes
    everything. It dies with the process that started it, whatever that process dies of.
    """

    def __init__(
        self,
        properties: Mapping[str, str] | None = None,
        *,
        port: int | None = None,
        ports: Mapping[str, int] | None = None,
        cluster_id: str | None = None,
        sasl: bool = False,
        proxy_port: int | None = None,
        heap: str = "768m",
    ) -> None:
        """
        Args:
            properties: settings of ``server.properties`` that go over our own.
            port: where clients connect; a free one by default.
            ports: all of them by listener, for a node that others have to know.
            cluster_id: what it shares with those; one of its own by default.
            sasl: add a second listener, `sasl_bootstrap`, that wants `PLAIN_USER` or `SCRAM_USER`.
            proxy_port: add a listener, at `proxied_port`, that sends its clients to this port of loopback: to a proxy.
            heap: Java's ``-Xmx``.
        """
        self._properties = dict(properties or {})
        self._wanted_port = port
        self._given_ports = ports
        self._cluster_id = cluster_id or new_cluster_id()
        self._sasl = sasl
        self._proxy_port = proxy_port
        self._heap = heap
        self._ports: dict[str, int] = {}
        self._directory: Path | None = None
        self._process: ServerProcess | None = None

    @property
    def bootstrap(self) -> str:
        """Where clients connect without credentials: ``127.0.0.1:port``. Known after `start`."""
        return f"{HOST}:{self._ports['PLAINTEXT']}"

    @property
    def sasl_bootstrap(self) -> str:
        """Where clients connect with credentials (security protocol SASL_PLAINTEXT)."""
        return f"{HOST}:{self._ports['SASL']}"

    @property
    def proxied_port(self) -> int:
        """Where a proxy connects whose clients have been sent to `proxy_port`."""
        return self._ports["PROXIED"]

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._begun().pid

    @property
    def directory(self) -> Path:
        """Where the server keeps settings, data and log. Known after `start`."""
        if self._directory is None:
            raise ServerError("The Kafka server was not started yet.")
        return self._directory

    @property
    def log_path(self) -> Path:
        """What the server printed, over all its starts."""
        return self._begun().log_path

    def start(self, timeout_sec: float = START_TIMEOUT_SEC) -> None:
        """Start, and return when clients are answered."""
        if self._process is None:
            mine = self._wanted_port is None and self._given_ports is None
            begun_on_free_ports(lambda: self._begin(timeout_sec), self.close, PORT_ATTEMPTS if mine else 1)
        elif not self._process.is_running:
            self._launch(timeout_sec)

    def stop(self) -> None:
        """Stop as an operator would; killed where that takes more than 20 s. Data stays."""
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """``kill -9``. Data stays."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the server, and remove everything it has written."""
        self.kill()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        self._directory = self._process = None
        self._ports = {}

    def pause(self) -> None:
        """Freeze the process: it keeps its connections and answers nobody."""
        self._begun().pause()

    def resume(self) -> None:
        """Undo `pause`."""
        self._begun().resume()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def server_properties(self) -> dict[str, str]:
        """The settings as they are written to ``server.properties``."""
        protocols = {
            "PLAINTEXT": "PLAINTEXT",
            "CONTROLLER": "PLAINTEXT",
            "SASL": "SASL_PLAINTEXT",
            "PROXIED": "PLAINTEXT",
        }
        listeners = {name: f"{name}://{HOST}:{port}" for name, port in self._ports.items()}
        advertised = {name: at for name, at in listeners.items() if name != "CONTROLLER"}
        if self._proxy_port is not None:
            advertised["PROXIED"] = f"PROXIED://{HOST}:{self._proxy_port}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{HOST}:{self._ports['CONTROLLER']}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": ",".join(f"{name}:{protocols[name]}" for name in listeners),
            "listeners": ",".join(listeners.values()),
            "advertised.listeners": ",".join(advertised.values()),
            "log.dirs": str(self.directory / "data"),
            "num.partitions": "1",
            "auto.create.topics.enable": "false",
            "default.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "log.cleaner.enable": "true",
            "log.cleaner.backoff.ms": "500",
            "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
            "log.initial.task.delay.ms": "1000",
            "log.retention.ms": "-1",  # tests send records of years ago
            "log.retention.check.interval.ms": "1000",
            "log.segment.delete.delay.ms": "1000",
        }
        if self._sasl:
            name, password = PLAIN_USER
            login = f'username="{name}" password="{password}" user_{name}="{password}"'
            settings |= {
                "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
                "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
                "listener.name.sasl.plain.sasl.jaas.config": (
                    f"org.apache.kafka.common.security.plain.PlainLoginModule required {login};"
                ),
                "listener.name.sasl.scram-sha-256.sasl.jaas.config": (
                    "org.apache.kafka.common.security.scram.ScramLoginModule required;"
                ),
            }
        return settings | self._properties

    def _begin(self, timeout_sec: float) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="paperboy-kafka-"))
        self._process = ServerProcess("Kafka", self._directory)
        self._choose_ports()
        self._format()
        self._launch(timeout_sec)

    def _launch(self, timeout_sec: float) -> None:
        process = self._begun()
        process.start(self._java("kafka.Kafka", "server.properties"), lambda: _STARTED in process.said(), timeout_sec)

    def _begun(self) -> ServerProcess:
        if self._process is None:
            raise ServerError("The Kafka server was not started yet: it is not running.")
        return self._process

    def _choose_ports(self) -> None:
        if self._given_ports is not None:
            self._ports = dict(self._given_ports)
            return
        names = ["PLAINTEXT", "CONTROLLER"] + ["SASL"] * self._sasl + ["PROXIED"] * (self._proxy_port is not None)
        taken: set[int] = set() if self._wanted_port is None else {self._wanted_port}
        for name in names:
            wanted = self._wanted_port if name == "PLAINTEXT" else None
            self._ports[name] = free_port(taken) if wanted is None else wanted
            taken.add(self._ports[name])

    def _format(self) -> None:
        lines = [f"{name}={value}\n" for name, value in self.server_properties().items()]
        (self.directory / "server.properties").write_text("".join(lines))
        scram_name, scram_password = SCRAM_USER
        users = ["-S", f"SCRAM-SHA-256=[name={scram_name},password={scram_password}]"] if self._sasl else []
        command = self._java(
            "kafka.tools.StorageTool", "format", "-t", self._cluster_id, *users, "-c", "server.properties"
        )
        result = subprocess.run(
            command, cwd=self.directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if result.returncode != 0:
            raise ServerError(f"Kafka's data directory could not be formatted: {result.stdout}{result.stderr}")

    def _java(self, *arguments: str) -> list[str]:
        # One processor's worth of compiler threads and the serial collector: several tests share a machine.
        options = [f"-Xmx{self._heap}", "-XX:+UseSerialGC", "-Dcom.sun.management.jmxremote=false"]
        logging = [
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
            "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn",
        ]
        return [str(find_java()), *options, *logging, "-cp", os.path.join(find_jars(), "*"), *arguments]


def new_cluster_id() -> str:
    """As Kafka wants it, which takes no leading dash."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
