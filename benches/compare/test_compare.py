"""The arithmetic of the comparison: what is spent between two moments, whose it is, and how goals fare."""

import os
import types

import places  # noqa: F401 (makes tools/clients/harness importable)
import measure
import report
import rows

CPUS = os.cpu_count()


def moment(at, broker=0.0, client=0.0, kernel=0.0, idle=0.0, steal=0.0, others=None, ended=0.0, are_all=True):
    disk = {"read": 0, "written": 0, "writes": 0, "flushes": 0}
    found = measure.Processes(kernel, others or {}, ended, are_all)
    return measure.Moment(at, broker, {"1": broker}, {7: client}, 0.0, found, idle, steal, disk, load=0.0)


# Ten seconds: the broker had 4, the client 3, the kernel's threads 1, and 0.6 more went somewhere.
BUSY = {"broker": 4, "client": 3, "kernel": 1, "idle": 10 * CPUS - 8.6}


def test_what_other_processes_used_spoils_a_window():
    before = moment(0, others={"9": 5.0})
    quiet = measure.between(before, moment(10, others={"9": 5.3}, **BUSY))
    assert not quiet["is_spoiled"]
    assert abs(quiet["foreign_cpu"] - 0.3) < 1e-9
    assert measure.between(before, moment(10, others={"9": 5.3, "10": 0.3}, **BUSY))["is_spoiled"], "one that began meanwhile counts"


def test_who_ended_counts_by_what_its_parent_took_over():
    before = moment(0, others={"1": 1.0, "9": 50.0}, ended=7.0)
    spent = measure.between(before, moment(10, others={"1": 1.0}, ended=57.55, **BUSY))
    assert abs(spent["foreign_cpu"] - 0.55) < 1e-9
    # One whose parent never asks leaves no trace; it must not make up for another.
    spent = measure.between(before, moment(10, others={"1": 1.55}, ended=7.0, **BUSY))
    assert abs(spent["foreign_cpu"] - 0.55) < 1e-9


def test_interrupts_are_the_measured_works_and_spoil_nothing():
    spent = measure.between(moment(0), moment(10, **BUSY))
    assert not spent["is_spoiled"]
    assert abs(spent["interrupts_cpu"] - 0.6) < 1e-9
    assert abs(spent["box_cpu"] - 5.6) < 1e-9


def test_where_we_do_not_see_every_process_what_is_nobodys_is_somebody_elses():
    spent = measure.between(moment(0, are_all=False), moment(10, are_all=False, **BUSY))
    assert spent["is_spoiled"]
    assert abs(spent["foreign_cpu"] - 0.6) < 1e-9


def test_a_client_that_ended_is_nobody_elses():
    spent = measure.between(moment(0, are_all=False), moment(10, are_all=False, **BUSY), ended=0.6)
    assert spent["foreign_cpu"] < 1e-9
    assert abs(spent["client_cpu"] - 3.6) < 1e-9


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


def test_a_row_that_failed_stands_in_the_table():
    found = results(flowstone=[1])
    found.failed(ROW, types.SimpleNamespace(name="kafka"), OSError("no answer\nwithin 300 s"))
    assert "FAILED in a round: Kafka 4.3.1: OSError: no answer within 300 s" in report.table(found, [ROW])
    assert "Kafka 4.3.1 failed in a round" in report.markdown(found, [ROW])
    nothing = results()
    nothing.failed(ROW, types.SimpleNamespace(name="flowstone"), OSError("no answer"))
    assert "FAILED in a round: Flowstone" in report.table(nothing, [ROW])
