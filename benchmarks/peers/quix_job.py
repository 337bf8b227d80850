"""One workload with Quix Streams, by the Python of its environment. See `lines.Job`."""

import time

from quixstreams import Application
from quixstreams.state.recovery import RecoveryManager, RecoveryPartition

from benchmarks.peers.lines import LEAST_AMOUNT, REGISTRY, Job, Live, Returning, Stretch, job_of_arguments, tell


def main(job: Job) -> None:
    workload, _, guarantee = job.workload.partition("/")
    app = Application(
        broker_address=job.bootstrap,
        consumer_group=job.group,
        auto_offset_reset="earliest",
        state_dir=job.state_dir,
        loglevel="WARNING",
        processing_guarantee=guarantee or "at-least-once",
    )
    source = app.topic(job.topic, key_deserializer="bytes", value_deserializer=value_deserializer(workload))
    RUNS[workload](job, app, app.dataframe(source))


def value_deserializer(workload):
    if workload == "avro":
        # Here: the other workloads are not to pay for it.
        from quixstreams.models import SchemaRegistryClientConfig
        from quixstreams.models.serializers.avro import AvroDeserializer

        return AvroDeserializer(schema_registry_client_config=SchemaRegistryClientConfig(url=REGISTRY))
    return "json" if workload == "json" else "bytes"


def no_op(job, app, frame):
    stretch = Stretch(job.records)

    def handle(_value):
        if stretch.handled():
            app.stop()

    frame.update(handle)
    app.run()
    stretch.tell()


def filtered(job, app, frame):
    stretch = Stretch(job.records)

    def passes(value):
        if stretch.handled():
            app.stop()
        return value["amount"] >= LEAST_AMOUNT

    def keep(_value):
        stretch.kept += 1

    frame.filter(passes).update(keep)
    app.run()
    stretch.tell()


def map_to_topic(job, app, frame):
    stretch = Stretch(job.records)

    def handle(_value):
        if stretch.handled():
            app.stop()

    out = app.topic(job.out, key_serializer="bytes", value_serializer="bytes")
    frame.to_topic(out).update(handle)
    app.run()
    stretch.tell()


def count(job, app, frame):
    stretch = Stretch(job.records)

    def handle(_value, state):
        state.set("count", state.get("count", 0) + 1)
        if stretch.handled():
            app.stop()

    frame.update(handle, stateful=True)
    app.run()
    stretch.tell()


def restore(job, app, frame):
    """From the beginning of a recovery to its end."""
    recover, complete = RecoveryManager.do_recovery, RecoveryPartition.complete_recovery
    seconds, records = 0.0, 0

    def timed_recovery(self):
        nonlocal seconds
        begun = time.perf_counter()
        recover(self)
        seconds += time.perf_counter() - begun
        app.stop()

    def counted_completion(self):
        nonlocal records
        records += self.offset + 1
        complete(self)

    RecoveryManager.do_recovery = timed_recovery
    RecoveryPartition.complete_recovery = counted_completion
    frame.update(lambda _value, state: state.get("count"), stateful=True)
    app.run()
    tell(seconds=seconds, records=records)


def restart(job, app, frame):
    returning = Returning(job.records)

    def handle(_value, state):
        state.set("count", state.get("count", 0) + 1)
        returning.handled()

    frame.update(handle, stateful=True)
    app.run()


def live(job, app, frame):
    noted = Live(job.records)

    def handle(value):
        if noted.handled(value):
            app.stop()

    frame.update(handle)
    app.run()
    noted.tell()


RUNS = {
    "noop": no_op,
    "json": filtered,
    "avro": filtered,
    "map": map_to_topic,
    "count": count,
    "restore": restore,
    "restart": restart,
    "live": live,
}

if __name__ == "__main__":
    main(job_of_arguments())
