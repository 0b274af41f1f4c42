"""The benchmark measures what it says: every peer on every workload, and a miss is a failure."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import thread_time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import resp

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # behind the installed packages: what is tested stays what it was

from benchmarks import __main__ as command  # noqa: E402
from benchmarks._measure import Row, measure, packing_row, parsing_row  # noqa: E402
from benchmarks._peers import NAMES, Implementation, load  # noqa: E402
from benchmarks._report import (  # noqa: E402
    SIDES,
    Check,
    as_json,
    checks,
    checks_across,
    checks_overall,
    table,
)
from benchmarks._workloads import (  # noqa: E402
    PURE_MEAN_ROWS,
    VARIANTS,
    Packing,
    Parsing,
    Variant,
    packing,
    parsing,
    sized,
)

if TYPE_CHECKING:
    from collections.abc import Callable

COMPILED, COMPILED_ONE, PURE, PURE_ONE, HIREDIS, LIBVALKEY, REDIS_PY, COREDIS = NAMES


def timed(group: str = VARIANTS[0].name, workload: str = "some", **seconds: float) -> Row:
    """Return a row that was measured: seconds by the key of an implementation."""
    names = {"compiled": COMPILED, "pure": PURE, "hiredis": HIREDIS, "redis_py": REDIS_PY}
    row = Row(group, workload, 100, {}, {})
    for key, value in seconds.items():
        row.runs[names[key]] = lambda _: None
        row.seconds[names[key]] = [value, 2 * value]
    return row


def test_what_can_be_imported_is_loaded_in_the_order_of_the_table() -> None:
    names = [implementation.name for implementation in load()]
    assert names == [name for name in NAMES if name in names]
    assert {PURE, PURE_ONE} <= set(names)
    assert (COMPILED in names) == (resp.implementation != "python")


@pytest.mark.heavy
def test_every_peer_returns_every_reply_of_every_workload() -> None:
    whole, text = VARIANTS[0], VARIANTS[2]
    for workload in parsing():
        if len(workload.replies[0]) < 100_000:
            few = Parsing(
                workload.name,
                workload.replies[:210],
                chunk=workload.chunk,
                resp2=workload.resp2,
                resp3=workload.resp3,
            )
            for variant in (whole, text):
                row = parsing_row(few, variant, load())  # it says so if one does not
                assert set(row.runs) == {each.name for each in load()}


def test_every_peer_packs_the_same_bytes() -> None:
    for workload in packing():
        few = Packing(workload.name, workload.commands, pipeline=workload.pipeline)
        row = packing_row(few, load())
        assert PURE in row.runs
        assert row.count == len(workload.commands)


def test_peer_that_loses_a_reply_is_an_error() -> None:
    def parse(*_: Any) -> Callable[[Any], None]:
        return lambda kept: kept.append(b"OK")

    lossy = Implementation("lossy", "1", parse, lambda _: None)
    with pytest.raises(AssertionError, match="lossy returned 1 of 2 replies"):
        parsing_row(Parsing("two", (b"+OK\r\n",) * 2), VARIANTS[0], [lossy])


def test_workload_is_cut_as_its_variant_says() -> None:
    workload = Parsing("five", (b"+OK\r\n",) * 5)
    chunks = [b"+OK\r\n+OK", b"\r\n+OK\r\n+", b"OK\r\n+OK\r", b"\n"]
    assert workload.chunks(8) == chunks
    assert workload.chunks(None) == [workload.stream]
    assert Parsing("two", (b"+OK\r\n",) * 3, chunk=2).chunks(8) == [b"+OK\r\n" * 2, b"+OK\r\n"]
    assert [sized(Parsing("one", (b"",), chunk=1), variant) for variant in VARIANTS[3:]] == [
        True,
        False,
        False,
    ]


def test_rounds_are_interleaved_and_their_order_changes() -> None:
    order: list[str] = []
    runs = {name: lambda _, name=name: order.append(name) for name in ("a", "b", "c")}
    row = Row("group", "some", 1, {}, runs)  # type: ignore[arg-type]
    measure(row, 4)
    rounds = {"".join(order[at : at + 3]) for at in range(0, 12, 3)}
    assert {"".join(sorted(each)) for each in rounds} == {"abc"}
    assert len(rounds) > 1
    assert {name: len(rounds) for name, rounds in row.seconds.items()} == {"a": 4, "b": 4, "c": 4}


def test_results_are_kept_only_where_the_variant_says_so() -> None:
    sinks: list[Any] = []
    for keep in (False, True):
        measure(Row("group", "some", 1, {}, {"a": sinks.append}, keep), 1)
    assert sinks == [None, []]


def test_cell_that_took_enough_gets_no_more_rounds() -> None:
    def work(_: object) -> None:
        end = thread_time() + 0.002
        while thread_time() < end:
            pass

    row = Row("group", "some", 1, {}, {"a": work, "b": lambda _: None})
    measure(row, 3, enough=0.001)
    assert (len(row.seconds["a"]), len(row.seconds["b"])) == (1, 3)
    # Measured again, each may take as much again.
    measure(row, 3, enough=0.001)
    assert (len(row.seconds["a"]), len(row.seconds["b"])) == (2, 6)


def test_run_that_settles_memory_is_not_timed() -> None:
    sinks: list[Any] = []
    row = Row("group", "some", 1, {}, {"a": sinks.append}, settle=True)
    measure(row, 2)
    assert (len(sinks), len(row.seconds["a"])) == (4, 2)


def test_ratio_is_of_the_minima() -> None:
    row = timed(pure=2e-6, hiredis=1e-6)
    assert row.nanoseconds(PURE) == pytest.approx(20)
    assert row.ratio(PURE, HIREDIS) == pytest.approx(0.5)
    assert row.ratio(COMPILED, HIREDIS) is None


def test_what_is_below_its_must_is_found() -> None:
    row = timed(compiled=1.0, pure=8.0, hiredis=4.0, redis_py=10.0)
    row.must = {"compiled": 5, "pure": 1.5, "pure hiredis": 0.4}
    found = {check.what: (check.misses(), check.fails(0.8)) for check in checks(row)}
    assert found[f"{COMPILED} to {HIREDIS}"] == (True, False)  # 4 of 5
    assert found[f"{PURE} to {REDIS_PY}"] == (True, False)  # 1.25 of 1.5
    assert found[f"{PURE} to {HIREDIS}"] == (False, False)  # 0.5 of 0.4


def test_what_is_known_to_be_reached_is_missed_and_does_not_fail() -> None:
    check = Check("somewhere", "it", 0.45, 0.7, reached=0.5)
    assert check.misses()
    assert not check.fails(0.8)
    assert check._replace(found=0.39).fails(0.8)


def test_floor_holds_where_there_is_no_must() -> None:
    found = {check.what: check for check in checks(timed(compiled=2.0, hiredis=1.0))}
    check = found[f"{COMPILED} to {HIREDIS}"]
    assert (check.found, check.must, check.fails(0.8)) == (0.5, 0.95, True)


def test_absent_implementation_is_never_a_miss_and_never_silent() -> None:
    row = timed(hiredis=1.0)
    row.must = {"compiled": 5}
    [check] = [check for check in checks(row) if COMPILED in check.what]
    assert not check.misses()
    assert str(check).endswith("is absent, must be 5")
    shown = table([row], [])
    assert "absent" in shown.splitlines()[1]
    assert f"absent, not importable here: {COMPILED}" in shown


def test_quadratic_time_and_slow_text_are_found() -> None:
    usual, text, small = VARIANTS[0].name, VARIANTS[2].name, VARIANTS[4].name
    rows = [
        timed(usual, pure=1.0),
        timed(text, pure=1.2),
        timed(small, pure=1.6),
        timed(usual, "fast", pure=1.0),
        timed(text, "fast", pure=1.1),
        timed(small, "fast", pure=1.4),
    ]
    missed = [check.where for check in checks_across(rows) if check.misses()]
    assert missed == [f"some ({text})", f"some ({small})"]


def test_mean_is_of_all_usual_rows_or_unknown() -> None:
    own = [workload.name for workload in parsing() if workload.chunk is not None]
    promised = [workload for workload in parsing() if "pure" in workload.must]
    assert len([each for each in promised if each.name not in own]) == PURE_MEAN_ROWS
    rows = [timed(workload=str(at), pure=1.0, redis_py=2.0) for at in range(PURE_MEAN_ROWS)]
    for row in rows:
        row.must = {"pure": 1}
    rows[0].seconds[REDIS_PY] = [2.0 * 2**PURE_MEAN_ROWS]
    [check] = checks_overall(rows)
    assert check.found == pytest.approx(4)
    assert (check.must, check.misses()) == (5, True)
    rows.append(timed(workload="other", pure=1.0, redis_py=9.0))
    assert [*checks_overall(rows)] == [check]
    assert [*checks_overall(rows[1:])] == []


def test_every_must_has_its_sides_and_its_workload() -> None:
    named = [variant.must(workload) for workload in parsing() for variant in VARIANTS]
    named += [workload.must for workload in packing()]
    assert {side for must in named for side in must} == set(SIDES)
    workloads = [workload.name for workload in parsing()]
    assert len(set(workloads)) == len(workloads)


def test_table_marks_what_is_below() -> None:
    row = timed(compiled=1.0, hiredis=4.0)
    row.must = {"compiled": 5}
    present = [Implementation(name, "1", *[lambda *_: None] * 2) for name in NAMES]
    assert "4.00! (5)" in table([row], present)


def test_json_is_pytest_benchmarks_and_names_no_host() -> None:
    row = timed(pure=2e-6, hiredis=1e-6)
    found = json.loads(as_json([row], load(), ["python", "-m", "benchmarks"]))
    first = found["benchmarks"][0]
    assert first["params"]["implementation"] == PURE
    assert first["extra_info"]["to_hiredis"] == pytest.approx(0.5)
    assert {"min", "median", "stddev", "rounds", "iterations"} <= set(first["stats"])
    assert "node" not in found["machine_info"]
    assert {"cpu", "python_version"} <= set(found["machine_info"])
    assert found["versions"][PURE]
    assert found["command"] == "python -m benchmarks"
    assert found["datetime"].endswith("+00:00")


@pytest.fixture
def two_workloads(monkeypatch: pytest.MonkeyPatch) -> list[Parsing]:
    workloads = [Parsing("+OK", (b"+OK\r\n",) * 200, {"pure hiredis": 0.0001})]
    monkeypatch.setattr(command, "parsing", lambda: workloads)
    monkeypatch.setattr(command, "packing", list)
    monkeypatch.setattr(command, "sleep", lambda _: None)
    return workloads


def called(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    return command.main()


def test_quick_form_passes_and_fails(
    two_workloads: list[Parsing],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("hiredis")
    monkeypatch.setattr(command, "checks", lambda row: [Check(row.workload, "it", 0.9, 1)])
    assert called(monkeypatch, "--quick", "--rounds", "1") == 0
    assert "1 figures hold, 0 do not" in capsys.readouterr().out
    monkeypatch.setattr(command, "checks", lambda row: [Check(row.workload, "it", 0.7, 1)])
    assert called(monkeypatch, "--quick", "--rounds", "1") == 1
    said = capsys.readouterr().out
    assert "FAILED: +OK: it is 0.70, must be 1" in said
    assert "measured again (3 of 3): +OK: it is 0.70, must be 1; now: +OK: it is 0.70" in said


def test_quick_form_believes_no_single_miss(
    two_workloads: list[Parsing],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("hiredis")
    rounds = []

    def found(row: Row) -> list[Check]:
        rounds.append(len(row.seconds[HIREDIS]))
        return [Check(row.workload, "it", 0.7 if rounds[-1] < 3 else 0.9, 1)]

    monkeypatch.setattr(command, "checks", found)
    assert called(monkeypatch, "--quick", "--rounds", "1") == 0
    said = capsys.readouterr().out
    assert "measured again (2 of 3): +OK: it is 0.70, must be 1; now: it holds" in said
    assert "(3 of 3)" not in said
    assert rounds[-1] == 3


def test_quick_form_fails_without_the_peers(
    two_workloads: list[Parsing],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours = [each for each in load() if each.name.startswith("resp")]
    monkeypatch.setattr(command, "load", lambda: ours)
    assert called(monkeypatch, "--quick", "--rounds", "1") == 1
    assert "nothing is known without hiredis and redis-py" in capsys.readouterr().out


@pytest.mark.heavy
def test_full_form_writes_the_figures_and_the_pictures(
    two_workloads: list[Parsing],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    drawn: list[Any] = []
    picture = SimpleNamespace(draw=lambda *arguments: drawn.append(arguments))
    monkeypatch.setitem(sys.modules, "benchmarks._picture", picture)
    assert called(monkeypatch, "--rounds", "1", "--output", str(tmp_path)) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "table.txt"}
    [(path, title, caption, rows)] = drawn
    assert path.name == "parsing.svg"
    assert "longer is better" in title
    assert "CPython" in caption or "PyPy" in caption
    assert [row.workload for row in rows] == ["+OK"]
    assert "+OK" in capsys.readouterr().out


def test_pictures_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks._picture import draw

    draw(tmp_path / "some.svg", "Title", "caption", [timed(pure=2.0, hiredis=1.0)])
    drawn = tmp_path.joinpath("some.svg").read_text()
    assert all(text in drawn for text in ("Title", "caption", "resp pure", "hiredis", "0.5"))


def test_variant_has_the_musts_of_its_kind() -> None:
    workload = Parsing("some", (), {"pure": 1}, must_text={"pure": 2}, must_4k={"pure": 3})
    found = [variant.must(workload).get("pure") for variant in VARIANTS]
    assert found == [1, None, 2, None, 3, None]
    assert Variant("other", text=True).must(workload) == {"pure": 2}
