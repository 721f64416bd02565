"""The arithmetic of the comparison: what is spent between two moments, whose it is, and how goals fare."""

import os
import types

import places  # noqa: F401 (makes tools/clients/harness importable)
import measure
import report
import rows

CPUS = os.cpu_count()


def moment(at, broker=0.0, client=0.0, kernel=0.0, idle=0.0, steal=0.0):
    disk = {"read": 0, "written": 0, "writes": 0, "flushes": 0}
    return measure.Moment(at, broker, {"1": broker}, {7: client}, 0.0, kernel, idle, steal, disk, load=0.0)


def test_what_nobody_of_ours_used_spoils_a_window():
    before = moment(0)
    # Ten seconds: the broker had 4, the client 3, the kernel's threads 1; what is left over was somebody else's.
    quiet = measure.between(before, moment(10, broker=4, client=3, kernel=1, idle=10 * CPUS - 8.3))
    assert not quiet["is_spoiled"]
    assert abs(quiet["foreign_cpu"] - 0.3) < 1e-9
    loud = measure.between(before, moment(10, broker=4, client=3, kernel=1, idle=10 * CPUS - 8.6))
    assert loud["is_spoiled"]


def test_the_whole_machine_has_the_kernels_threads_and_not_the_clients():
    spent = measure.between(moment(0), moment(10, broker=4, client=3, kernel=1, idle=10 * CPUS - 8))
    assert abs(spent["box_cpu"] - 5) < 1e-9


def test_what_the_host_gave_to_others_is_not_ours():
    spent = measure.between(moment(0), moment(10, broker=4, idle=10 * CPUS - 6, steal=2))
    assert abs(spent["box_cpu"] - 4) < 1e-9
    assert not spent["is_spoiled"]


def results(**samples):
    found = report.Results({"line": "a machine"}, types.SimpleNamespace(rounds=3))
    for side, values in samples.items():
        for value in values:
            found.add(ROW, types.SimpleNamespace(name=side.replace("_", "-")), {"cpu_per_gb": value, "is_kept": True})
    return found


ROW = rows.Row("r", "a row", ("flowstone", "kafka", "kafka-flush"), rows.CPU_GB, goals=(rows.Goal("kafka", 3, 5), rows.Goal("kafka-flush", 8, 20)))


def test_goals_are_held_against_medians():
    verdicts = [goal["verdict"] for goal in report.goals(results(flowstone=[1, 9, 1], kafka=[4, 4, 1], kafka_flush=[7, 7, 7]), ROW)]
    assert verdicts == ["reached", "MISSED"]
    verdicts = [goal["verdict"] for goal in report.goals(results(flowstone=[1], kafka=[5]), ROW)]
    assert verdicts == ["aim reached"], "a side that was not measured has no verdict"


def test_more_is_better_where_it_is_said():
    row = rows.Row("r", "a row", ("flowstone", "flowstone-2"), rows.MB_S, goals=(rows.Goal("flowstone", 1.6, 1.9, side="flowstone-2"),))
    found = report.Results({"line": "a machine"}, types.SimpleNamespace(rounds=1))
    for side, value in (("flowstone", 100), ("flowstone-2", 170)):
        found.add(row, types.SimpleNamespace(name=side), {"mb_s": value, "is_kept": True})
    assert [goal["verdict"] for goal in report.goals(found, row)] == ["reached"]


def test_rounds_that_were_thrown_away_do_not_count_but_stay():
    found = results(flowstone=[1, 1, 1])
    found.add(ROW, types.SimpleNamespace(name="flowstone"), {"cpu_per_gb": 100, "is_kept": False})
    assert found.median(ROW, "flowstone", "cpu_per_gb") == 1
    assert [len(entry["samples"]) for entry in found.document()["rows"]] == [4]


def test_every_row_is_about_sides_that_there_are():
    names = [row.name for row in rows.ROWS]
    assert len(set(names)) == len(names)
    for row in rows.ROWS:
        assert set(row.sides) <= set(report.SIDES), row.name
        assert {goal.against for goal in row.goals} | {goal.side for goal in row.goals} <= set(row.sides) | {"flowstone"}, row.name
        assert all(row.metric_of(limit.metric) for limit in row.limits), row.name
