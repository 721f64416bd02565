"""One round trip with kafka-python at a pinned protocol version; prints what it saw as JSON. Run by test_kafka_python.py with the library on PYTHONPATH."""

import json
import sys

import kafka
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

bootstrap, topic, version, codec = sys.argv[1:]
pin = {"bootstrap_servers": bootstrap, "api_version": tuple(map(int, version.split(".")))}

admin = KafkaAdminClient(**pin)
admin.create_topics([NewTopic(name=topic, num_partitions=2, replication_factor=1)])
producer = KafkaProducer(**pin, acks="all", retries=10, compression_type=None if codec == "none" else codec)
sent = [
    producer.send(topic, key=b"k%d" % n, value=b"value %d" % n, partition=n % 2, headers=[("h", b"%d" % n)], timestamp_ms=1000 + n)
    for n in range(100)
]
producer.flush(30)
offsets = [[result.partition, result.offset] for result in (future.get(10) for future in sent)]
producer.close()

settings = {"auto_offset_reset": "earliest", "enable_auto_commit": False, "consumer_timeout_ms": 30000}
consumer = KafkaConsumer(topic, group_id=topic + "-group", **pin, **settings)
got = []
for message in consumer:
    got.append([message.partition, message.offset, message.key.decode(), message.value.decode(), message.headers[0][1].decode(), message.timestamp])
    if len(got) == 100:
        break
consumer.commit()
zero = TopicPartition(topic, 0)
consumer.seek(zero, 48)
again = next(consumer).offset
at = consumer.offsets_for_times({zero: 1051})[zero]
ends = [consumer.beginning_offsets([zero])[zero], consumer.end_offsets([zero])[zero]]
committed = consumer.committed(zero)
consumer.close()
# Renamed in 3.0, with names instead of pairs.
listed = [group["group_id"] for group in admin.list_groups()] if hasattr(admin, "list_groups") else [group[0] for group in admin.list_consumer_groups()]
admin.delete_topics([topic])
admin.close()
print(json.dumps({"library": kafka.__version__, "offsets": offsets, "got": got, "again": again, "at": at.offset, "ends": ends, "committed": committed, "listed": topic + "-group" in listed}))
