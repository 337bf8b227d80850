"""What the records look like. A schema is changed by adding fields with a default: then old and new read each other."""

from typing import Any

ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "customer", "type": "string"},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}

ORDER_WITH_CURRENCY: dict[str, Any] = {
    **ORDER,
    "fields": [*ORDER["fields"], {"name": "currency", "type": "string", "default": "EUR"}],
}
"""The same, later."""

CUSTOMER: dict[str, Any] = {
    "type": "record",
    "name": "Customer",
    "namespace": "shop",
    "fields": [
        {"name": "orders", "type": "int"},
        {"name": "spent", "type": {"type": "bytes", "logicalType": "decimal", "precision": 14, "scale": 2}},
        {"name": "currency", "type": "string"},
    ],
}
