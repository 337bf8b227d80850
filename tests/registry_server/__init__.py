"""A real schema registry for tests: Apicurio on loopback, which speaks Confluent's API and keeps all in memory."""

from tests.registry_server.distribution import prepare
from tests.registry_server.server import RegistryServer

__all__ = ["RegistryServer", "prepare"]
