"""Prints the committed records of a topic by Confluent's own deserializer: python consume.py BROKERS REGISTRY TOPIC."""

import datetime
import sys
from decimal import Decimal
from uuid import UUID

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

brokers, registry, topic = sys.argv[1:]
sys.stdout.reconfigure(encoding="utf-8")
deserialize = AvroDeserializer(SchemaRegistryClient({"url": registry}))
consumer = Consumer(
    {
        "bootstrap.servers": brokers,
        "group.id": "check",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
    }
)
partitions = consumer.list_topics(topic, 30).topics[topic].partitions
consumer.assign([TopicPartition(topic, p, 0) for p in partitions])


def shown(x):
    if isinstance(x, bytes):
        return x.hex()
    if isinstance(x, (Decimal, UUID, datetime.date, datetime.time, datetime.datetime)):
        return str(x)
    if isinstance(x, dict):
        return {k: shown(v) for k, v in x.items()}
    return x


ended = set()
while len(ended) < len(partitions):
    message = consumer.poll(30)
    if message is None:
        sys.exit("the broker is silent")
    if message.error():
        ended.add(message.partition())
        continue
    key = deserialize(message.key(), SerializationContext(topic, MessageField.KEY))
    value = message.value()
    if value is not None:
        value = deserialize(value, SerializationContext(topic, MessageField.VALUE))
    print(shown(key), shown(value))
