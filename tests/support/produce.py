"""Writes records with Confluent's own serializers: python produce.py JOB, a JSON object.

brokers, registry, topic; kind "avro" or "protobuf"; strategy "topic", "record" or "topic_record";
schema, key_schema: Avro schemas (key_schema may be left out: keys are text);
descriptor (a descriptor set, hexadecimal), message: for protobuf; register: false where the schemas are there;
records: [key, value] each. A text "!dec 1.2" is a decimal, "!hex 01" bytes; a value of null is a tombstone.
"""

import json
import sys
from decimal import Decimal

from confluent_kafka import Producer
from confluent_kafka.schema_registry import (
    SchemaRegistryClient,
    record_subject_name_strategy,
    topic_record_subject_name_strategy,
    topic_subject_name_strategy,
)
from confluent_kafka.serialization import MessageField, SerializationContext, StringSerializer

job = json.loads(sys.argv[1])
registry = SchemaRegistryClient({"url": job["registry"]})
producer = Producer({"bootstrap.servers": job["brokers"]})
strategies = {
    "topic": topic_subject_name_strategy,
    "record": record_subject_name_strategy,
    "topic_record": topic_record_subject_name_strategy,
}
settings = {"subject.name.strategy": strategies[job.get("strategy", "topic")]}
if not job.get("register", True):
    settings |= {"auto.register.schemas": False, "use.latest.version": True}


def value_of(x):
    if isinstance(x, str) and x.startswith("!dec "):
        return Decimal(x[5:])
    if isinstance(x, str) and x.startswith("!hex "):
        return bytes.fromhex(x[5:])
    if isinstance(x, list):
        return [value_of(i) for i in x]
    if isinstance(x, dict):
        return {k: value_of(v) for k, v in x.items()}
    return x


def avro(schema):
    from confluent_kafka.schema_registry.avro import AvroSerializer

    return AvroSerializer(registry, json.dumps(schema), conf=settings)


def protobuf():
    from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
    from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
    from google.protobuf import duration_pb2, struct_pb2, timestamp_pb2, wrappers_pb2  # noqa: F401, known by their names

    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(bytes.fromhex(job["descriptor"])).file:
        pool.Add(file)
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName(job["message"]))
    serializer = ProtobufSerializer(message, registry, settings | {"use.deprecated.format": False})
    return lambda value, context: serializer(json_format.ParseDict(value, message()), context)


serialize = avro(job["schema"]) if job["kind"] == "avro" else protobuf()
serialize_key = avro(job["key_schema"]) if "key_schema" in job else StringSerializer()
for key, value in job["records"]:
    producer.produce(
        job["topic"],
        key=None if key is None else serialize_key(value_of(key), SerializationContext(job["topic"], MessageField.KEY)),
        value=None if value is None else serialize(value_of(value), SerializationContext(job["topic"], MessageField.VALUE)),
    )
    producer.poll(0)
left = producer.flush(60)
sys.exit(f"{left} records were not written" if left else 0)
