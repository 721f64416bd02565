"""kafka-topics and kafka-configs."""

import re


def described(tools, name):
    """{partition: (leader, replicas, isr)} as kafka-topics describes the topic, and its heading's fields."""
    lines = tools("kafka-topics", "--describe", "--topic", name).lines
    heading = dict(field.split(": ", 1) if ": " in field else (field.rstrip(":"), "") for field in lines[0].split("\t"))
    rows = {}
    for line in lines[1:]:
        fields = dict(field.split(": ", 1) for field in line.strip().split("\t") if ": " in field)
        rows[int(fields["Partition"])] = (fields["Leader"], fields["Replicas"], fields["Isr"])
    return heading, rows


def test_create_describe_alter_list_delete(tools, name):
    made = tools("kafka-topics", "--create", "--topic", name, "--partitions", 3, "--replication-factor", 1)
    assert f"Created topic {name}." in made.out

    heading, rows = described(tools, name)
    assert heading["Topic"] == name
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", heading["TopicId"])
    assert (heading["PartitionCount"], heading["ReplicationFactor"]) == ("3", "1")
    assert rows == {partition: ("1", "1", "1") for partition in range(3)}

    tools("kafka-topics", "--alter", "--topic", name, "--partitions", 5)
    heading_after, rows = described(tools, name)
    assert heading_after["TopicId"] == heading["TopicId"]
    assert sorted(rows) == [0, 1, 2, 3, 4]

    fewer = tools("kafka-topics", "--alter", "--topic", name, "--partitions", 2, fails=True)
    assert "InvalidPartitionsException" in fewer.out + fewer.err

    assert name in tools("kafka-topics", "--list").lines
    tools("kafka-topics", "--delete", "--topic", name)
    assert name not in tools("kafka-topics", "--list").lines
    gone = tools("kafka-topics", "--describe", "--topic", name, fails=True)
    assert "does not exist as expected" in gone.out + gone.err


def test_create_twice(tools, name):
    tools("kafka-topics", "--create", "--topic", name)
    again = tools("kafka-topics", "--create", "--topic", name, fails=True)
    assert f"Topic '{name}' already exists." in again.out + again.err
    tools("kafka-topics", "--create", "--topic", name, "--if-not-exists")


def test_create_refused(tools, name):
    many = tools("kafka-topics", "--create", "--topic", name, "--replication-factor", 3, fails=True)
    assert "InvalidReplicationFactorException" in many.out + many.err
    odd = tools("kafka-topics", "--create", "--topic", "no spaces", fails=True)
    assert "InvalidTopicException" in odd.out + odd.err
    config = tools("kafka-topics", "--create", "--topic", name, "--config", "retention.ms=soon", fails=True)
    assert "retention.ms" in config.out + config.err


def test_create_with_configs_and_assignment(tools, name):
    tools("kafka-topics", "--create", "--topic", name, "--replica-assignment", "1,1", "--config", "retention.ms=60000", "--config", "segment.bytes=1048576")
    heading, rows = described(tools, name)
    assert "retention.ms=60000" in heading["Configs"] and "segment.bytes=1048576" in heading["Configs"]
    assert sorted(rows) == [0, 1]
    overridden = tools("kafka-topics", "--describe", "--topics-with-overrides").out
    assert f"Topic: {name}\t" in overridden


def test_topic_configs(tools, name):
    tools("kafka-topics", "--create", "--topic", name)
    topic = ("--entity-type", "topics", "--entity-name", name)
    altered = tools("kafka-configs", "--alter", *topic, "--add-config", "retention.ms=12345,max.message.bytes=2000000")
    assert f"Completed updating config for topic {name}." in altered.out

    own = tools("kafka-configs", "--describe", *topic)
    assert "retention.ms=12345 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=12345" in own.out
    assert "max.message.bytes=2000000" in own.out
    assert "segment.bytes" not in own.out, "only what was set is listed without --all"

    everything = tools("kafka-configs", "--describe", *topic, "--all").out
    for line in ("segment.bytes=1073741824", "cleanup.policy=delete", "compression.type=producer", "min.insync.replicas=1", "message.timestamp.type=CreateTime"):
        assert line in everything
    assert "DEFAULT_CONFIG:log.segment.bytes=1073741824" in everything

    tools("kafka-configs", "--alter", *topic, "--delete-config", "retention.ms")
    own = tools("kafka-configs", "--describe", *topic).out
    assert "retention.ms" not in own and "max.message.bytes=2000000" in own

    refused = tools("kafka-configs", "--alter", *topic, "--add-config", "no.such.key=1", fails=True)
    assert "InvalidConfigurationException" in refused.out + refused.err and "no.such.key" in refused.out + refused.err


def test_broker_configs(tools):
    one = ("--entity-type", "brokers", "--entity-name", "1")
    try:
        altered = tools("kafka-configs", "--alter", *one, "--add-config", "log.retention.ms=7200000")
        assert "Completed updating config for broker 1." in altered.out
        assert "log.retention.ms=7200000 sensitive=false synonyms={DYNAMIC_BROKER_CONFIG:log.retention.ms=7200000" in tools("kafka-configs", "--describe", *one).out
    finally:
        tools("kafka-configs", "--alter", *one, "--delete-config", "log.retention.ms")
    assert "DYNAMIC_BROKER_CONFIG:log.retention.ms" not in tools("kafka-configs", "--describe", *one).out

    everything = tools("kafka-configs", "--describe", *one, "--all").out
    assert "group.initial.rebalance.delay.ms=0 sensitive=false synonyms={STATIC_BROKER_CONFIG:" in everything
    assert re.search(r"^\s*num.partitions=\d+ sensitive=false", everything, re.M)

    default = ("--entity-type", "brokers", "--entity-default")
    tools("kafka-configs", "--alter", *default, "--add-config", "message.max.bytes=1500000")
    try:
        assert "message.max.bytes=1500000" in tools("kafka-configs", "--describe", *default).out
        assert "DYNAMIC_DEFAULT_BROKER_CONFIG:message.max.bytes=1500000" in tools("kafka-configs", "--describe", *one, "--all").out
    finally:
        tools("kafka-configs", "--alter", *default, "--delete-config", "message.max.bytes")

    static = tools("kafka-configs", "--alter", *one, "--add-config", "process.roles=broker", fails=True)
    assert "process.roles" in static.out + static.err
