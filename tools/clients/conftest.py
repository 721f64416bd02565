"""Fixtures: one broker and one JVM for Kafka's tools a run; brokers of their own for tests that kill, restart or copy."""

import itertools
import os

import pytest

pytest.register_assert_rewrite("harness.requests")

from harness import broker as brokers  # noqa: E402
from harness.places import CLIENTS  # noqa: E402
from harness.tools import Tools  # noqa: E402

names = itertools.count(1)


def pytest_report_header():
    return f"broker under test: {brokers.chosen().name}"


@pytest.fixture(scope="session")
def run_folder():
    """A folder of this run in the build folder; the last run's is cleared when the next one starts."""
    folder = CLIENTS / "runs" / brokers.chosen().name
    if folder.exists():
        brokers.shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="session")
def shared_broker(run_folder):
    broker = brokers.chosen()(run_folder / "shared")
    broker.start()
    yield broker
    broker.close()


@pytest.fixture
def broker(shared_broker):
    """The broker that most tests share. A test after which it is dead has failed, and the next one gets it restarted."""
    if not shared_broker.alive():
        shared_broker.start()
    yield shared_broker
    if not shared_broker.alive():
        pytest.fail(f"the broker died ({shared_broker.process.returncode}) in this test:\n{shared_broker.log_tail()}")


@pytest.fixture
def new_broker(run_folder):
    """Makes brokers of the test's own, not yet started: new_broker(settings={...}, data=path, kind=Kafka)."""
    made = []

    def make(kind=None, **kwargs):
        broker = (kind or brokers.chosen())(run_folder / f"own-{next(names)}", **kwargs)
        made.append(broker)
        return broker

    yield make
    for broker in made:
        broker.close()


@pytest.fixture(scope="session")
def all_tools(run_folder):
    with (run_folder / "tools.log").open("wb") as log:
        tools = Tools(log)
        yield tools
        tools.close()


@pytest.fixture
def tools(all_tools, broker):
    """Kafka's tools against the shared broker: tools("kafka-topics", "--list")."""
    return bound(all_tools, broker)


def bound(all_tools, broker):
    def call(tool, *args, **kwargs):
        return all_tools.run(tool, *args, bootstrap=broker.bootstrap, **kwargs)

    call.start = lambda tool, *args, **kwargs: all_tools.start(tool, *args, bootstrap=broker.bootstrap, **kwargs)
    return call


@pytest.fixture
def bind_tools(all_tools):
    """Kafka's tools against a broker of the test's own: bind_tools(broker)("kafka-topics", ...)."""
    return lambda broker: bound(all_tools, broker)


@pytest.fixture
def name():
    """A name that no other test of this run uses, for topics and groups."""
    return f"t{os.getpid()}-{next(names)}"
