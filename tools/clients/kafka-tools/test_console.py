"""kafka-console-producer and kafka-console-consumer: with and without group, keys, headers, each codec."""

import pytest

from harness.until import until

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def lines(count, word="line"):
    return [f"{word} {n} of the publication, äöü" for n in range(count)]


def test_produce_and_consume_without_a_group(tools, name):
    tools("kafka-topics", "--create", "--topic", name)
    tools("kafka-console-producer", "--topic", name, stdin="\n".join(lines(500)) + "\n")
    read = tools("kafka-console-consumer", "--topic", name, "--from-beginning", "--max-messages", 500)
    assert read.out.splitlines() == lines(500)
    assert "Processed a total of 500 messages" in read.err


def test_produce_to_a_topic_that_does_not_exist_yet(tools, name):
    tools("kafka-console-producer", "--topic", name, stdin="first\n")
    assert tools("kafka-console-consumer", "--topic", name, "--from-beginning", "--max-messages", 1).out == "first\n"


@pytest.mark.parametrize("codec", CODECS)
def test_codec(tools, name, codec):
    tools("kafka-topics", "--create", "--topic", name)
    tools("kafka-console-producer", "--topic", name, "--compression-codec", codec, stdin="\n".join(lines(300)) + "\n")
    read = tools("kafka-console-consumer", "--topic", name, "--from-beginning", "--max-messages", 300)
    assert read.out.splitlines() == lines(300)


@pytest.mark.parametrize("codec", CODECS[1:])
def test_topic_that_compresses_itself(tools, name, codec):
    """compression.type of the topic: the broker compresses what came plain, and what came in another codec."""
    tools("kafka-topics", "--create", "--topic", name, "--config", f"compression.type={codec}")
    tools("kafka-console-producer", "--topic", name, stdin="\n".join(lines(200)) + "\n")
    other = "gzip" if codec != "gzip" else "lz4"
    tools("kafka-console-producer", "--topic", name, "--compression-codec", other, stdin="\n".join(lines(200, "again")) + "\n")
    read = tools("kafka-console-consumer", "--topic", name, "--from-beginning", "--max-messages", 400)
    assert read.out.splitlines() == lines(200) + lines(200, "again")


def test_keys_and_headers(tools, name):
    tools("kafka-topics", "--create", "--topic", name)
    records = "trace:1,kind:a\tkey-1\tvalue 1\ntrace:2\tkey-2\tvalue 2\nNULL\tkey-3\tNULL\n"
    parse = [word for prop in ("parse.key=true", "parse.headers=true", "null.marker=NULL") for word in ("--reader-property", prop)]
    tools("kafka-console-producer", "--topic", name, *parse, stdin=records)
    show = [word for prop in ("print.key=true", "print.headers=true", "print.offset=true", "print.partition=true") for word in ("--formatter-property", prop)]
    read = tools("kafka-console-consumer", "--topic", name, "--from-beginning", "--max-messages", 3, *show)
    assert read.out.splitlines() == [
        "Partition:0\tOffset:0\ttrace:1,kind:a\tkey-1\tvalue 1",
        "Partition:0\tOffset:1\ttrace:2\tkey-2\tvalue 2",
        "Partition:0\tOffset:2\tNO_HEADERS\tkey-3\tnull",
    ]


def test_timestamps(tools, name):
    tools("kafka-topics", "--create", "--topic", name, "--config", "message.timestamp.type=LogAppendTime")
    tools("kafka-console-producer", "--topic", name, stdin="x\n")
    read = tools("kafka-console-consumer", "--topic", name, "--from-beginning", "--max-messages", 1, "--formatter-property", "print.timestamp=true")
    assert read.out.startswith("LogAppendTime:1") and read.out.endswith("\tx\n")


def test_partition_and_offset(tools, name):
    tools("kafka-topics", "--create", "--topic", name, "--partitions", 2)
    tools("kafka-console-producer", "--topic", name, "--command-property", "partitioner.class=org.apache.kafka.clients.producer.RoundRobinPartitioner", stdin="\n".join(lines(100)) + "\n")
    counts = []
    for partition in (0, 1):
        read = tools("kafka-console-consumer", "--topic", name, "--partition", partition, "--offset", "earliest", "--timeout-ms", 1000)
        counts.append(len(read.lines))
    assert sum(counts) == 100 and min(counts) > 0
    tail = tools("kafka-console-consumer", "--topic", name, "--partition", 0, "--offset", counts[0] - 2, "--max-messages", 2)
    assert len(tail.lines) == 2


def test_group_goes_on_where_it_stopped(tools, name):
    tools("kafka-topics", "--create", "--topic", name)
    tools("kafka-console-producer", "--topic", name, stdin="\n".join(lines(10)) + "\n")
    group = ("--topic", name, "--group", f"{name}-group", "--command-property", "auto.offset.reset=earliest")
    first = tools("kafka-console-consumer", *group, "--max-messages", 4)
    second = tools("kafka-console-consumer", *group, "--max-messages", 6)
    assert first.out.splitlines() + second.out.splitlines() == lines(10)


def test_two_members_share_the_partitions(tools, name):
    tools("kafka-topics", "--create", "--topic", name, "--partitions", 4)
    member = ("kafka-console-consumer", "--topic", name, "--group", f"{name}-group", "--from-beginning", "--formatter-property", "print.partition=true")
    members = [tools.start(*member), tools.start(*member)]

    def assigned():
        seen = tools("kafka-consumer-groups", "--describe", "--group", f"{name}-group", "--members").out
        rows = [line.split() for line in seen.splitlines() if "console-consumer" in line]
        return [row[4] for row in rows] == ["2", "2"]

    until(assigned, what="two members with two partitions each")
    keyed = "".join(f"key-{n}\t{line}\n" for n, line in enumerate(lines(200)))
    tools("kafka-console-producer", "--topic", name, "--reader-property", "parse.key=true", stdin=keyed)
    until(lambda: sum(len(m.peek().lines) for m in members) == 200, what="200 records at two members")
    parts = []
    for running in members:
        read = running.stop().lines
        parts.append({line.split("\t")[0] for line in read})
        assert len(read) > 0
    assert not parts[0] & parts[1], "a partition has one reader in a group"
    assert len(parts[0] | parts[1]) == 4


def test_read_committed(tools, name):
    """Plain records are all committed: nothing may be held back."""
    tools("kafka-topics", "--create", "--topic", name)
    tools("kafka-console-producer", "--topic", name, stdin="\n".join(lines(5)) + "\n")
    read = tools("kafka-console-consumer", "--topic", name, "--from-beginning", "--max-messages", 5, "--isolation-level", "read_committed")
    assert read.out.splitlines() == lines(5)


def test_include_pattern(tools, name):
    for suffix in ("a", "b"):
        tools("kafka-console-producer", "--topic", f"{name}-{suffix}", stdin=f"{suffix}\n")
    read = tools("kafka-console-consumer", "--include", f"{name}-.*", "--from-beginning", "--max-messages", 2)
    assert sorted(read.lines) == ["a", "b"]


def test_record_too_large(tools, name):
    tools("kafka-topics", "--create", "--topic", name, "--config", "max.message.bytes=1000")
    refused = tools("kafka-console-producer", "--topic", name, "--sync", "--message-send-max-retries", 0, stdin="x" * 5000 + "\n", fails=True)
    assert "RecordTooLargeException" in refused.err
    offsets = tools("kafka-get-offsets", "--topic", name)
    assert offsets.lines == [f"{name}:0:0"], "a record over max.message.bytes never reaches the log"
