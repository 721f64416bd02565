"""kafka-get-offsets, kafka-delete-records, kafka-log-dirs."""

import json


def filled(tools, name, count=20, partitions=1, config=()):
    tools("kafka-topics", "--create", "--topic", name, "--partitions", partitions, *config)
    tools("kafka-console-producer", "--topic", name, stdin="".join(f"record {n}\n" for n in range(count)))


def test_get_offsets(tools, name):
    filled(tools, name)
    ask = ("kafka-get-offsets", "--topic", name, "--time")
    assert tools("kafka-get-offsets", "--topic", name).lines == [f"{name}:0:20"]
    assert tools(*ask, "-2").lines == [f"{name}:0:0"]
    assert tools(*ask, "earliest").lines == [f"{name}:0:0"]
    assert tools(*ask, "latest").lines == [f"{name}:0:20"]
    assert tools(*ask, "1").lines == [f"{name}:0:0"], "the first record at or after that time"
    (newest,) = tools(*ask, "max-timestamp").lines
    assert newest.rsplit(":", 1)[0] == f"{name}:0" and 0 <= int(newest.rsplit(":", 1)[1]) < 20
    assert tools(*ask, "9999999999999").lines in ([], [f"{name}:0:"], [f"{name}:0:-1"]), "nothing is that new"


def test_get_offsets_of_partitions(tools, name):
    filled(tools, name, count=0, partitions=3)
    assert tools("kafka-get-offsets", "--topic-partitions", f"{name}:1-2").lines == [f"{name}:1:0"]
    assert tools("kafka-get-offsets", "--topic", name, "--partitions", "0,2").lines == [f"{name}:0:0", f"{name}:2:0"]


def test_delete_records(tools, name, tmp_path):
    filled(tools, name)
    file = tmp_path / "offsets.json"

    def delete(offset):
        file.write_text(json.dumps({"version": 1, "partitions": [{"topic": name, "partition": 0, "offset": offset}]}))
        return tools("kafka-delete-records", "--offset-json-file", file).out

    assert f"partition: {name}-0\tlow_watermark: 12" in delete(12)
    assert tools("kafka-get-offsets", "--topic", name, "--time", "earliest").lines == [f"{name}:0:12"]
    read = tools("kafka-console-consumer", "--topic", name, "--from-beginning", "--max-messages", 8)
    assert read.lines == [f"record {n}" for n in range(12, 20)]
    assert "OffsetOutOfRangeException" in delete(21)
    assert f"partition: {name}-0\tlow_watermark: 20" in delete(-1), "-1 is the high watermark"
    assert tools("kafka-get-offsets", "--topic", name, "--time", "earliest").lines == [f"{name}:0:20"]


def test_log_dirs(tools, broker, name):
    filled(tools, name, partitions=2)
    out = tools("kafka-log-dirs", "--describe", "--topic-list", name)
    found = json.loads(out.lines[-1])
    (node,) = found["brokers"]
    (directory,) = node["logDirs"]
    assert (node["broker"], directory["error"], directory["logDir"]) == (1, None, str(broker.data))
    sizes = {entry["partition"]: entry["size"] for entry in directory["partitions"]}
    assert sorted(sizes) == [f"{name}-0", f"{name}-1"]
    assert sum(sizes.values()) > 20 * len("record 0")
    assert all(entry["offsetLag"] == 0 and entry["isFuture"] is False for entry in directory["partitions"])
