"""kafka-verifiable-producer and -consumer, kafka-producer-perf-test, kafka-consumer-perf-test."""

import json
import re


def events(output, kind):
    return [event for event in map(json.loads, output.lines) if event["name"] == kind]


def test_verifiable_producer_and_consumer(tools, name):
    tools("kafka-topics", "--create", "--topic", name, "--partitions", 2)
    made = tools("kafka-verifiable-producer", "--topic", name, "--max-messages", 2000, "--acks", -1, "--throughput", -1)
    acked = events(made, "producer_send_success")
    assert len(acked) == 2000 and not events(made, "producer_send_error")
    (summary,) = events(made, "tool_data")
    assert (summary["sent"], summary["acked"]) == (2000, 2000)

    read = tools("kafka-verifiable-consumer", "--topic", name, "--group-id", f"{name}-group", "--max-messages", 2000, "--reset-policy", "earliest", "--verbose")
    data = [(event["partition"], event["offset"], event["value"]) for event in events(read, "record_data")]
    assert sorted(data) == sorted((event["partition"], event["offset"], event["value"]) for event in acked)
    (assigned,) = events(read, "partitions_assigned")
    assert len(assigned["partitions"]) == 2
    committed = events(read, "offsets_committed")
    assert committed and all(event["success"] for event in committed)


def perf(output):
    """(records, MB/s, max latency ms) of the last summary line."""
    found = re.search(r"^(\d+) records sent, .*?\(([\d.]+) MB/sec\).*?([\d.]+) ms max latency.*99.9th", output.out, re.M)
    assert found, output.out
    return int(found[1]), float(found[2]), float(found[3])


def test_producer_perf_acks_all_and_idempotent(tools, name):
    tools("kafka-topics", "--create", "--topic", name, "--partitions", 4)
    load = ("kafka-producer-perf-test", "--topic", name, "--num-records", 50000, "--record-size", 512, "--throughput", -1)
    plain = tools(*load, "--command-property", "acks=all", "enable.idempotence=false")
    idempotent = tools(*load, "--command-property", "acks=all", "enable.idempotence=true")
    for output in (plain, idempotent):
        assert perf(output)[0] == 50000
    ends = [int(line.rsplit(":", 1)[1]) for line in tools("kafka-get-offsets", "--topic", name).lines]
    assert sum(ends) == 100000

    read = tools("kafka-consumer-perf-test", "--topic", name, "--num-records", 100000, "--timeout", 20000)
    heading, row = read.lines[-2:]
    values = dict(zip(heading.replace(" ", "").split(","), row.replace(" ", "").split(","), strict=True))
    assert int(values["data.consumed.in.nMsg"]) >= 100000
