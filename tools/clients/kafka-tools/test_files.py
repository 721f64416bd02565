"""What lies on the disk: kafka-dump-log and kafka-metadata-shell read it, and directories pass between Kafka and Flowstone."""

import re

import pytest

from harness.broker import Flowstone, Kafka, chosen, copy_of
from harness.tools import metadata_tree

# A segment of a megabyte is the smallest that Kafka takes; the load of `written` fills three.
SMALL_SEGMENTS = ("--config", "segment.bytes=1048576")
RECORDS = 6000
RECORD_BYTES = 500


def fill(tools, name):
    """A topic with sealed segments, an idempotent producer's state, two codecs, keys, headers, and a group's offsets. Returns its end offset."""
    tools("kafka-topics", "--create", "--topic", name, *SMALL_SEGMENTS)
    load = ("kafka-producer-perf-test", "--topic", name, "--record-size", RECORD_BYTES, "--throughput", -1)
    tools(*load, "--num-records", RECORDS, "--command-property", "acks=all", "enable.idempotence=true")
    tools("kafka-console-producer", "--topic", name, "--compression-codec", "zstd", stdin="".join(f"packed {n}\n" for n in range(50)))
    headed = [word for prop in ("parse.key=true", "parse.headers=true") for word in ("--reader-property", prop)]
    tools("kafka-console-producer", "--topic", name, *headed, stdin="h1:v1\tthe key\tthe value\n")
    end = RECORDS + 51
    assert tools("kafka-get-offsets", "--topic", name).lines == [f"{name}:0:{end}"]
    read = ("kafka-console-consumer", "--topic", name, "--group", f"{name}-group", "--from-beginning", "--max-messages", 100)
    assert len(tools(*read).lines) == 100
    return end


def check_filled(tools, name, end):
    """All that `fill` wrote is there, and the topic takes more."""
    assert tools("kafka-get-offsets", "--topic", name).lines == [f"{name}:0:{end}"]
    show = ("--formatter-property", "print.key=true", "--formatter-property", "print.headers=true")
    all_of_it = tools("kafka-console-consumer", "--topic", name, "--from-beginning", "--max-messages", end, *show).lines
    assert len(all_of_it) == end
    assert all_of_it[-51:-1] == [f"NO_HEADERS\tnull\tpacked {n}" for n in range(50)]
    assert all_of_it[-1] == "h1:v1\tthe key\tthe value"
    group = tools("kafka-consumer-groups", "--describe", "--group", f"{name}-group").lines[-1].split()
    assert group[:6] == [f"{name}-group", name, "0", "100", str(end), str(end - 100)]
    assert "segment.bytes=1048576" in tools("kafka-topics", "--describe", "--topic", name).lines[0]
    tools("kafka-console-producer", "--topic", name, stdin="one more\n")
    assert tools("kafka-get-offsets", "--topic", name).lines == [f"{name}:0:{end + 1}"]


@pytest.fixture(scope="module")
def written(run_folder, all_tools):
    """The data directory of the broker under test after a load and a clean stop, with the name of its topic."""
    from conftest import bound

    name = "files"
    broker = chosen()(run_folder / "written")
    broker.start()
    try:
        end = fill(bound(all_tools, broker), name)
        assert broker.stop() in (0, 143), "143 is what the JVM says of a SIGTERM it handled"
    finally:
        broker.close()
    return broker.data, name, end


def dump(all_tools, *files, more=()):
    """kafka-dump-log's output; fails on every complaint it knows."""
    out = all_tools.run("kafka-dump-log", "--files", ",".join(map(str, files)), *more).out
    for complaint in ("Found ", "Non-consecutive", "Mismatches", "Non consecutive", "not valid", "Corrupt", "corrupt", "Could not", "isvalid: false", "invalid bytes"):
        assert complaint not in out, f"{complaint!r} in what kafka-dump-log says of {files}:\n{out[:3000]}"
    return out


def ends(pattern, directory):
    found = sorted(directory.glob(pattern))
    assert found, f"no {pattern} in {directory}: {sorted(path.name for path in directory.iterdir())}"
    return found


def test_segments_are_dumped_without_a_complaint(all_tools, written):
    data, name, end = written
    segments = ends("*.log", data / f"{name}-0")
    assert len(segments) >= 3, "segment.bytes was kept"
    bases = [int(segment.stem) for segment in segments]
    seen, codecs, producers = 0, set(), set()
    for segment, base in zip(segments, bases, strict=True):
        out = dump(all_tools, segment, more=("--print-data-log", "--deep-iteration"))
        assert f"Log starting offset: {base}" in out
        batches = [dict(re.findall(r"(\w+): (\S+)", line)) for line in out.splitlines() if line.startswith("baseOffset:")]
        for batch in batches:
            assert int(batch["baseOffset"]) == seen, "offsets are dense across batches and segments"
            assert (batch["isvalid"], batch["magic"], batch["partitionLeaderEpoch"]) == ("true", "2", "0")
            seen = int(batch["lastOffset"]) + 1
            codecs.add(batch["compresscodec"])
            producers.add(int(batch["producerId"]))
        records = [line for line in out.splitlines() if line.startswith("| offset:")]
        assert len(records) == seen - base
    assert seen == end
    assert codecs == {"none", "zstd"}
    assert max(producers) >= 0, "the idempotent producer's id is in its batches"
    assert "headerKeys: [h1] key: the key payload: the value" in out


def test_indexes_are_dumped_without_a_complaint(all_tools, written):
    data, name, _ = written
    directory = data / f"{name}-0"
    for index in ends("*.index", directory):
        out = dump(all_tools, index, more=("--index-sanity-check",))
        assert f"{index} passed sanity check." in out
        # Without the flag it looks up every entry in the segment and says which does not match.
        dump(all_tools, index)
    sealed = ends("*.index", directory)[0]
    assert re.search(r"^offset: \d+ position: \d+", dump(all_tools, sealed), re.M), "a sealed segment of a megabyte has entries"
    for index in ends("*.timeindex", directory):
        assert f"{index} passed sanity check." in dump(all_tools, index, more=("--index-sanity-check",))
        dump(all_tools, index)


def test_producer_snapshot_is_dumped(all_tools, written):
    data, name, end = written
    newest = ends("*.snapshot", data / f"{name}-0")[-1]
    assert int(newest.stem) == end, "a clean stop leaves a snapshot at the log's end"
    out = dump(all_tools, newest)
    assert re.search(r"producerId: \d+ producerEpoch: 0 .*lastSequence: \d+", out), out
    if chosen() is Flowstone:
        assert b"FSpb" in newest.read_bytes(), "with the producer's earlier batches, which Kafka's reader passes over"


def test_checkpoints_are_there(written):
    """Text files in Kafka's format: a version, a count, a line each."""
    data, name, end = written
    for file in ("recovery-point-offset-checkpoint", "log-start-offset-checkpoint", "replication-offset-checkpoint"):
        version, count, *lines = (data / file).read_text().splitlines()
        assert version == "0" and int(count) == len(lines)
    assert f"{name} 0 {end}" in (data / "replication-offset-checkpoint").read_text().splitlines()
    assert f"{name} 0 {end}" in (data / "recovery-point-offset-checkpoint").read_text().splitlines()
    assert (data / f"{name}-0" / "leader-epoch-checkpoint").read_text().splitlines() == ["0", "1", "0 0"]
    assert re.search(r"^version: 0\ntopic_id: [A-Za-z0-9_-]{22}$", (data / f"{name}-0" / "partition.metadata").read_text(), re.M)
    meta = (data / "meta.properties").read_text()
    for line in (r"version=1", r"node\.id=1", r"cluster\.id=\S{22}", r"directory\.id=\S{22}"):
        assert re.search(f"^{line}$", meta, re.M)
    assert (data / ".kafka_cleanshutdown").exists()


def test_offsets_topic_is_decoded(all_tools, written):
    data, name, _ = written
    # A partition without a record has no segment of ours, and an empty one of Kafka's.
    out = dump(all_tools, *ends("__consumer_offsets-*/*.log", data), more=("--offsets-decoder",))
    committed = [line for line in out.splitlines() if f'"group":"{name}-group"' in line and '"offset":100' in line]
    assert committed, "the commit is a record in Kafka's format"
    assert f'"topic":"{name}"' in committed[-1] and '"partition":0' in committed[-1]


def test_metadata_is_decoded(all_tools, written):
    data, name, _ = written
    directory = data / "__cluster_metadata-0"
    out = dump(all_tools, *ends("*.log", directory), more=("--cluster-metadata-decoder",))
    for record in ("REGISTER_BROKER_RECORD", "TOPIC_RECORD", "PARTITION_RECORD", "CONFIG_RECORD", "PRODUCER_IDS_RECORD"):
        assert f'"type":"{record}"' in out, record
    (topic,) = [line for line in out.splitlines() if '"type":"TOPIC_RECORD"' in line and f'"name":"{name}"' in line]
    assert re.search(r'"topicId":"[A-Za-z0-9_-]{22}"', topic)
    assert "unparseable" not in out and "Error" not in out
    for checkpoint in ends("*.checkpoint", directory):
        dump(all_tools, checkpoint, more=("--cluster-metadata-decoder",))


def test_metadata_shell(written):
    data, name, _ = written
    (log, *_) = ends("*.log", data / "__cluster_metadata-0")
    shown = metadata_tree(log)
    assert {"cluster:", "configs:", "features:", "topics:"} <= set(shown.splitlines())
    by_name = shown.partition("  byName:\n")[2].splitlines()
    assert {f"    {name}:", "    __consumer_offsets:"} <= set(by_name)
    assert "PartitionRegistration(replicas=[1]" in by_name[by_name.index(f"    {name}:") + 2], "partition 0 comes first"


def test_directory_opens_again(bind_tools, new_broker, written, tmp_path):
    """The broker under test starts on its own directory."""
    data, name, end = written
    broker = new_broker(data=copy_of(data, tmp_path / "data"))
    check_filled(bind_tools(broker.start()), name, end)


def test_directory_of_kafka_is_served(bind_tools, new_broker, tmp_path):
    """Apache Kafka formats, fills and cleanly stops a directory; the broker under test opens it with the same server.properties keys."""
    kafka = new_broker(kind=Kafka)
    kafka.start()
    end = fill(bind_tools(kafka), "from-kafka")
    kafka.stop()
    settings = {"properties": True} if chosen() is Flowstone else {}
    broker = new_broker(data=copy_of(kafka.data, tmp_path / "data"), **settings)
    check_filled(bind_tools(broker.start()), "from-kafka", end)


def test_directory_is_served_by_kafka(bind_tools, new_broker, written, tmp_path):
    """And back: what the broker under test wrote and cleanly stopped, Apache Kafka opens and serves."""
    data, name, end = written
    kafka = new_broker(kind=Kafka, data=copy_of(data, tmp_path / "data"))
    check_filled(bind_tools(kafka.start()), name, end)
