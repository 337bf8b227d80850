"""A record is taken for aiokafka's ConsumerRecord, which it is not."""

import copy
import dataclasses
import gc
import pickle
import weakref

import pytest
from aiokafka import ConsumerRecord

from paperboy.brokers.protocol import Record, new_record

FIELDS = ("views", 3, 17, 1_700_000_000_000, 0, b"anna", b"/home", None, 4, 5, (("h", b"1"),))


@pytest.fixture
def record() -> Record:
    return new_record(*FIELDS)


def test_it_has_the_fields_of_a_consumer_record_in_their_order(record: Record) -> None:
    names = [field.name for field in dataclasses.fields(ConsumerRecord)]
    assert {name: getattr(record, name) for name in names} == dict(zip(names, FIELDS, strict=True))


def test_it_is_taken_for_a_consumer_record(record: Record) -> None:
    real = ConsumerRecord(*FIELDS)
    assert isinstance(record, ConsumerRecord)
    assert record == real
    assert real == record
    assert repr(record) == repr(real)
    assert dataclasses.replace(record, value=b"/") == dataclasses.replace(real, value=b"/")
    assert dataclasses.asdict(record) == dataclasses.asdict(real)


def test_it_differs_from_a_consumer_record_with_another_value(record: Record) -> None:
    record.value = b"/about"
    assert record != ConsumerRecord(*FIELDS)


def test_it_can_be_changed_copied_pickled_and_referred_to_weakly(record: Record) -> None:
    for other in (copy.copy(record), copy.deepcopy(record), pickle.loads(pickle.dumps(record))):
        assert other == record
        other.value = {"decoded": True}
        assert record.value == b"/home"
    record.note = "of the handler's own"
    assert weakref.ref(record)() is record


def test_a_message_whose_value_refers_to_it_is_freed() -> None:
    record = new_record(*FIELDS)
    record.value = {"message": record}
    gone = weakref.ref(record)
    del record
    gc.collect()
    assert gone() is None
