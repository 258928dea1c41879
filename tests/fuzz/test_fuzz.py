"""The fuzzer finds what is planted; what it has found stays mended; a short run finds nothing."""

from __future__ import annotations

import pytest
from fuzz import engine
from fuzz.mutators import Special
from fuzz.targets import TARGETS

PLANTED = {
    "leak": "raised KeyError", "nameless": "names no file", "crash": "crash", "memory": "memory",
    "run": "forbidden", "unpickle": "forbidden", "noise": "noise", "insane": "insane",
    "lost": "lost", "slow": "slow",
}  # fmt: skip
CORPUS = sorted(engine.CORPUS.glob("*.zip"))
# Targets whose readers need TensorFlow, which takes seconds to import.
HEAVY = ("weights_h5", "weights_old_h5", "weights_keras", "run_folder", "vocabulary", "results",
         "trials", "checkpoints", "export", "flags")  # fmt: skip


def test_a_valid_input_is_accepted_and_a_refusal_is_no_fault(worker):
    assert worker.judge("planted_right", {"x.json": b'{"size": 3}'})["verdict"] == "accepted"
    assert worker.judge("planted_right", {"x.json": b"{"})["verdict"] == "refused"


@pytest.mark.parametrize("name", [name for name in PLANTED if name != "slow"])
def test_planted_faults_are_found(worker, name):
    verdict = worker.judge(f"planted_{name}", {"x.json": b"{}"})
    assert (verdict["verdict"], verdict["kind"]) == ("fault", PLANTED[name])


def test_a_slow_reader_is_found(tmp_path):
    worker = engine.Worker(tmp_path, most=0.2)
    verdict = worker.judge("planted_slow", {"x.json": b"{}"})
    worker.close()
    assert (verdict["verdict"], verdict["kind"]) == ("fault", "slow")


def test_a_reader_that_waits_is_found(worker, monkeypatch):
    monkeypatch.setattr(engine, "WALL_SECONDS", 0.5)
    worker.samples("planted_leak")
    verdict = worker.judge("planted_leak", {"x.json": Special("pipe")})
    assert (verdict["verdict"], verdict["kind"]) == ("fault", "hang")


def test_the_same_seed_gives_the_same_inputs_and_a_fault_is_saved_small(tmp_path):
    said = []
    with engine.Campaign(3, ["planted_insane", "planted_right"], tmp_path, said.append) as first:
        first.run(inputs=25)
    with engine.Campaign(3, ["planted_right"], None, said.append) as second:
        second.run(inputs=25)
        again = [second.input("planted_right", number) for number in range(25)]
        assert again == [second.input("planted_right", number) for number in range(25)]
    count, same = first.counts["planted_right"], second.counts["planted_right"]
    assert (count.accepted, count.refused, count.faults) == (same.accepted, same.refused, {})
    assert sum(first.counts["planted_insane"].faults.values()) > 0
    (saved,) = tmp_path.iterdir()
    target, files = engine.load(saved)
    assert target == "planted_insane" and saved.stat().st_size < 1000
    assert any("insane" in line for line in said)
    assert "planted_right" in engine.table(first.counts)


def replayed(path, worker):
    verdict = worker.judge(*engine.load(path))
    assert verdict["verdict"] != "fault", f"{verdict['kind']}: {verdict['said']}"


def of_heavy(path) -> bool:
    return engine.load(path)[0] in HEAVY


@pytest.mark.parametrize("path", [p for p in CORPUS if not of_heavy(p)], ids=lambda p: p.stem)
def test_what_was_found_stays_mended(worker, path):
    replayed(path, worker)


@pytest.mark.parametrize("path", [p for p in CORPUS if of_heavy(p)], ids=lambda p: p.stem)
def test_what_was_found_of_runs_stays_mended(worker, path):
    replayed(path, worker)


def test_the_corpus_is_small():
    assert all(path.stat().st_size < 50_000 for path in CORPUS)


@pytest.mark.parametrize("name", TARGETS)
def test_undamaged_samples_are_accepted(worker, name):
    for files in worker.samples(name):
        assert worker.judge(name, files)["verdict"] == "accepted"


def test_a_short_campaign_finds_nothing(worker):
    """`make fuzz` runs a longer one."""
    said: list[str] = []
    with engine.Campaign(0, list(TARGETS), None, said.append, worker) as campaign:
        campaign.run(inputs=20)
    assert not said, "\n".join(said)
    for name, count in campaign.counts.items():
        # Of files with checksums or tight headers, next to none of so few damaged ones is whole.
        assert count.refused, f"{name} refuses nothing: {count}"
    assert sum(count.accepted > 0 for count in campaign.counts.values()) > len(TARGETS) / 2
