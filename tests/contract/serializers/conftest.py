"""Messages of Protobuf, and registries that nobody else uses."""

import importlib
import importlib.resources
import sys
from pathlib import Path
from types import ModuleType

import pytest
from grpc_tools import protoc

from paperboy.clock import random_id
from paperboy.serializers import SchemaRegistry

_HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """What protoc makes of shop.proto."""
    made = tmp_path_factory.mktemp("protobuf")
    known = importlib.resources.files("grpc_tools") / "_proto"
    files = ["shop.proto", "money.proto"]
    assert protoc.main(["protoc", f"-I{_HERE}", f"-I{known}", f"--python_out={made}", *files]) == 0
    sys.path.insert(0, str(made))
    try:
        return importlib.import_module("shop_pb2")
    finally:
        sys.path.remove(str(made))


@pytest.fixture(params=["memory", "apicurio"])
def registry(request: pytest.FixtureRequest) -> SchemaRegistry:
    if request.param == "memory":
        return SchemaRegistry("memory://")
    return SchemaRegistry(request.getfixturevalue("registry_url"))


@pytest.fixture
def topic() -> str:
    return f"topic-{random_id()[:12]}"
