"""Counting per key with Quix Streams. Run by its own Python: BOOTSTRAP TOPIC GROUP STATE_DIR RECORDS; prints JSON.

With RECORDS 0 it only restores its state, and stops.
"""

import json
import sys
import time

from quixstreams import Application
from quixstreams.state.recovery import RecoveryManager


def main(bootstrap: str, topic: str, group: str, state_dir: str, records: str) -> None:
    wanted, seen, begun, restore_sec = int(records), 0, 0.0, 0.0
    app = Application(
        broker_address=bootstrap,
        consumer_group=group,
        auto_offset_reset="earliest",
        state_dir=state_dir,
        loglevel="WARNING",
    )

    def count(_value, state):
        nonlocal seen, begun
        if not seen:
            begun = time.perf_counter()
        state.set("count", state.get("count", 0) + 1)
        seen += 1
        if seen == wanted:
            app.stop()

    recover = RecoveryManager.do_recovery

    def timed_recovery(self) -> None:
        nonlocal restore_sec
        before = time.perf_counter()
        recover(self)
        restore_sec += time.perf_counter() - before
        if not wanted:
            app.stop()

    RecoveryManager.do_recovery = timed_recovery
    source = app.topic(topic, key_deserializer="bytes", value_deserializer="bytes")
    app.dataframe(source).apply(count, stateful=True)
    app.run()
    seconds = time.perf_counter() - begun if wanted else restore_sec
    print(json.dumps({"seconds": seconds, "records": seen}))


main(*sys.argv[1:])
