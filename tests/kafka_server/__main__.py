"""``python -m tests.kafka_server``: get what a real Kafka needs, or run one by hand.

``prepare`` prints nothing on success; where no Kafka can be had it prints the one line that says what to install, and
exits with 1. ``run`` stays in the foreground until Ctrl-C.
"""

import argparse
import signal
import sys
from types import FrameType

from tests.kafka_server.distribution import KafkaUnavailable, prepare
from tests.kafka_server.server import KafkaServer
from tests.server_process import ServerError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kafka_server", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("prepare", help="get Java and Kafka's jars where they are missing")
    run = commands.add_parser("run", help="start a Kafka, print where it listens, and stop it at Ctrl-C")
    run.add_argument("--port", type=int, default=9092, help="where clients connect (default: 9092)")
    arguments = parser.parse_args()
    try:
        prepare()
        if arguments.command == "run":
            _run(arguments.port)
    except KafkaUnavailable as error:
        print(error)
        return 1
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run(port: int) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        with KafkaServer(port=port) as server:
            print(
                f"Kafka listens on {server.bootstrap}; it and its data go at Ctrl-C. Log: {server.log_path}", flush=True
            )
            signal.pause()
    except KeyboardInterrupt:
        print("Kafka is stopped.")


if __name__ == "__main__":
    sys.exit(main())
