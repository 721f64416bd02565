"""kcat, the client of the demo: what people type at it."""

import json
import subprocess
import time

import pytest

from harness.places import LOOPBACK

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


@pytest.fixture
def kcat(broker):
    def run(*words, feed="", seconds=30):
        command = ["kcat", "-b", broker.bootstrap, *map(str, words)]
        done = subprocess.run(command, input=feed, capture_output=True, text=True, timeout=seconds, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    return run


def test_list_metadata(kcat, broker, name):
    kcat("-P", "-t", name, feed="x\n")
    seen = json.loads(kcat("-L", "-J", "-t", name))
    assert seen["brokers"] in ([{"id": 1, "name": f"{host}:{broker.port}"}] for host in LOOPBACK)
    (topic,) = seen["topics"]
    assert topic["topic"] == name and [p["leader"] for p in topic["partitions"]] == [1] * len(topic["partitions"])


@pytest.mark.parametrize("codec", CODECS)
def test_codecs(kcat, name, codec):
    lines = "".join(f"line {n} of {codec}\n" for n in range(1000))
    kcat("-P", "-t", name, "-p", 0, "-z", codec, "-X", "acks=all", feed=lines)
    assert kcat("-C", "-t", name, "-p", 0, "-o", "beginning", "-e") == lines


def test_keys_headers_and_format(kcat, name):
    kcat("-P", "-t", name, "-p", 0, "-K", ":", "-H", "trace=7", "-H", "empty=", feed="k1:v1\nk2:v2\n")
    shown = kcat("-C", "-t", name, "-o", "beginning", "-e", "-f", "%p %o %k %s %h\n")
    assert shown.splitlines() == ["0 0 k1 v1 trace=7,empty=", "0 1 k2 v2 trace=7,empty="]


def test_null_values(kcat, name):
    kcat("-P", "-t", name, "-p", 0, "-K", ":", "-Z", feed="gone:\n")
    (seen,) = [json.loads(line) for line in kcat("-C", "-t", name, "-o", "beginning", "-e", "-J").splitlines()]
    assert (seen["key"], seen["payload"]) == ("gone", None)


def test_offsets_from_either_end(kcat, name):
    kcat("-P", "-t", name, "-p", 0, feed="".join(f"{n}\n" for n in range(100)))
    assert kcat("-C", "-t", name, "-p", 0, "-o", "-3", "-e").split() == ["97", "98", "99"]
    assert kcat("-C", "-t", name, "-p", 0, "-o", 40, "-c", 2).split() == ["40", "41"]
    assert kcat("-C", "-t", name, "-p", 0, "-o", "end", "-e") == ""


def test_offsets_by_time(kcat, name):
    kcat("-P", "-t", name, "-p", 0, feed="before\n")
    time.sleep(0.05)
    middle = int(time.time() * 1000)
    time.sleep(0.05)
    kcat("-P", "-t", name, "-p", 0, feed="after\n")
    assert kcat("-C", "-t", name, "-p", 0, "-o", f"s@{middle}", "-e") == "after\n"
    assert kcat("-Q", "-t", f"{name}:0:{middle}") == f"{name} [0] offset 1\n"


def test_group(kcat, name):
    kcat("-P", "-t", name, "-p", 0, feed="".join(f"{n}\n" for n in range(50)))
    read = ("-G", f"{name}-group", name, "-X", "auto.offset.reset=earliest")
    assert kcat(*read, "-c", 20).split() == [str(n) for n in range(20)]
    assert kcat(*read, "-c", 30).split() == [str(n) for n in range(20, 50)]


def test_idempotent(kcat, name):
    lines = "".join(f"{n}\n" for n in range(20000))
    kcat("-P", "-t", name, "-p", 0, "-X", "enable.idempotence=true", "-X", "batch.num.messages=100", feed=lines)
    assert kcat("-C", "-t", name, "-p", 0, "-o", "beginning", "-e") == lines


def test_large_records(kcat, name, tmp_path):
    """A file is a record; 900 KB pass under the default limit of 1 MiB."""
    file = tmp_path / "large"
    file.write_text("".join(chr(33 + n % 90) for n in range(900_000)))
    kcat("-P", "-t", name, "-p", 0, file)
    assert kcat("-C", "-t", name, "-p", 0, "-o", "beginning", "-e", "-D", "") == file.read_text()
