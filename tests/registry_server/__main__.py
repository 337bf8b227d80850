"""``python -m tests.registry_server``: get what a real schema registry needs. Prints nothing on success; where none can
be had it prints the one line that says what to install, and exits with 1."""

import sys

from tests.kafka_server import KafkaUnavailable
from tests.registry_server import prepare

if __name__ == "__main__":
    try:
        prepare()
    except KafkaUnavailable as error:
        print(error)
        sys.exit(1)
