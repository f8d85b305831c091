"""Painted labels survive: kills, torn files and flipped bytes cost at most what they touch."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from im2im_core import journal as module
from im2im_core.errors import DataError, ResourceError
from im2im_core.events import Event
from im2im_core.files import read_json, write_json
from im2im_core.journal import Journal, blocks, blocks_at, list_journals
from im2im_core.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.create(tmp_path / "p")


def orphan(journal: Journal) -> None:
    """Let the process that wrote `journal` be one that is gone."""
    base = read_json(journal.folder / "base.json")
    write_json(journal.folder / "base.json", {**base, "owner": [base["owner"][0], 2**22 + 7, 1.0]})


def test_every_change_is_restored(project: Project) -> None:
    labels = np.zeros((2, 300, 520), np.uint16)
    journal = Journal(project, "a-1")
    journal.note_base(labels, name="nuclei", about={"scale": [1, 0.2, 0.2]})
    assert journal.write_changes(labels) == 0
    labels[1, 290, 519] = 70
    labels[0, 0, 0] = 65535
    assert journal.write_changes(labels) == 2
    labels[1, 290, 519] = 0
    assert journal.write_changes(labels) == 1
    other = Journal(project, "a-1")
    np.testing.assert_array_equal(other.restore(), labels)
    assert other.restore().dtype == labels.dtype
    info = other.info()
    assert (info.name, info.shape, info.changes, info.about) == ("nuclei", (2, 300, 520), 2, {"scale": [1, 0.2, 0.2]})


def test_only_blocks_that_were_looked_at_are_written(project: Project) -> None:
    labels = np.zeros((600, 600), np.uint8)
    journal = Journal(project, "a")
    journal.note_base(labels)
    labels[:] = 3
    assert journal.write_changes(labels, [(0, 0), (2, 2)]) == 2
    assert Journal(project, "a").restore().sum() == 3 * (256**2 + 88**2)
    assert journal.write_changes(labels) == 7


def test_a_prefilled_layer_is_part_of_the_base(project: Project) -> None:
    labels = np.arange(90_000, dtype=np.int32).reshape(300, 300)
    Journal(project, "a").note_base(labels)
    np.testing.assert_array_equal(Journal(project, "a").restore(), labels)


def test_an_unchanged_file_is_the_base_and_must_stay_the_same(project: Project, tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 9, (3, 300, 300)).astype(np.uint16)
    path = tmp_path / "labels.tif"
    tifffile.imwrite(path, labels, photometric="minisblack", metadata={"axes": "ZYX"})
    journal = Journal(project, "a")
    journal.look(labels)
    journal.note_base(path)
    labels[2, 299, 299] = 77
    assert journal.write_changes(labels) == 1
    assert sum(f.stat().st_size for f in journal.folder.glob("*.npy")) < 10_000
    np.testing.assert_array_equal(Journal(project, "a").restore(), labels)
    tifffile.imwrite(path, labels[:, :9], photometric="minisblack", metadata={"axes": "ZYX"})
    with pytest.raises(DataError, match="has changed since"):
        Journal(project, "a").restore()


def test_a_long_journal_is_written_anew(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPACT_AFTER", 5)
    labels = np.zeros((40, 40), np.uint8)
    journal = Journal(project, "a")
    journal.note_base(labels)
    for i in range(23):
        labels[i, i] = i + 1
        journal.write_changes(labels)
        np.testing.assert_array_equal(Journal(project, "a").restore(), labels)
        assert len(list(journal.folder.iterdir())) < 14


def test_blocks_cover_everything_once() -> None:
    seen = np.zeros((2, 257, 512), int)
    for _, index in blocks(seen.shape):
        seen[index] += 1
    assert (seen == 1).all()
    assert blocks_at((np.array([1, 1]), np.array([256, 0]), np.array([255, 511]))) == {(1, 1, 0), (1, 0, 1)}


# ---- listing -------------------------------------------------------------------


def test_journals_of_living_viewers_are_not_offered(project: Project) -> None:
    journal = Journal(project, "a")
    journal.note_base(np.ones((8, 8), np.uint8))
    assert list_journals(project) == ()
    orphan(journal)
    assert [j.uuid for j in list_journals(project)] == ["a"]
    journal.discard()
    assert not journal.exists
    assert list_journals(project) == ()


def test_what_was_never_painted_and_what_cannot_be_read_is_not_offered(project: Project) -> None:
    empty = Journal(project, "empty")
    empty.note_base(np.zeros((8, 8), np.uint8))
    orphan(empty)
    for name, text in (("x", "{"), ("y", '{"shape": 3}'), ("z", "[]")):
        (project.folder("journal") / name).mkdir()
        (project.folder("journal") / name / "base.json").write_text(text)
    assert list_journals(project) == ()
    with pytest.raises(DataError, match="cannot be read"):
        Journal(project, "x").restore()
    with pytest.raises(DataError, match="cannot name a journal"):
        Journal(project, "../x")


# ---- damage --------------------------------------------------------------------


def painted(project: Project) -> tuple[Journal, list[np.ndarray]]:
    """Journal with three changes of two blocks each, and the labels after each."""
    journal, labels, states = Journal(project, "a"), np.zeros((256, 512), np.uint8), []
    journal.note_base(labels)
    for value in (1, 2, 3):
        labels[:, value::7] = value
        journal.write_changes(labels)
        states.append(labels.copy())
    return journal, states


@pytest.mark.parametrize("kept", [0, 60, 1000])
def test_a_torn_change_is_skipped_with_a_message(project: Project, kept: int) -> None:
    journal, states = painted(project)
    file = journal.folder / "000002.npy"
    file.write_bytes(file.read_bytes()[:kept])
    heard: list[Event] = []
    np.testing.assert_array_equal(journal.restore(heard.append), states[1])
    assert [e.code for e in heard] == ["journal_damaged"]  # type: ignore[attr-defined]


def test_fault_10_a_flipped_byte_costs_one_block(project: Project) -> None:
    journal, states = painted(project)
    file = journal.folder / "000002.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    heard: list[Event] = []
    restored = journal.restore(heard.append)
    np.testing.assert_array_equal(restored[:, :256], states[2][:, :256])
    np.testing.assert_array_equal(restored[:, 256:], states[1][:, 256:])
    assert len(heard) == 1


def test_fault_30_a_pickle_in_the_journal_is_not_loaded(project: Project) -> None:
    journal, states = painted(project)
    np.save(journal.folder / "000002.npy", np.array([print], object), allow_pickle=True)
    heard: list[Event] = []
    np.testing.assert_array_equal(journal.restore(heard.append), states[1])
    assert len(heard) == 1


def test_a_list_that_lies_is_skipped(project: Project) -> None:
    journal, states = painted(project)
    file = journal.folder / "000002.json"
    listed = read_json(file)
    listed["blocks"][0]["place"] = [9, 9]
    listed["blocks"][1]["offset"] = -5
    write_json(file, listed)
    heard: list[Event] = []
    np.testing.assert_array_equal(journal.restore(heard.append), states[1])
    assert len(heard) == 2


def test_fault_05_a_full_disk_is_reported_and_written_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, labels = Journal(project, "a"), np.zeros((8, 8), np.uint8)
    journal.note_base(labels)
    labels[0, 0] = 5

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(ResourceError, match="No space left"):
            journal.write_changes(labels)
    assert journal.write_changes(labels) == 1
    np.testing.assert_array_equal(Journal(project, "a").restore(), labels)


WRITER = """
import sys
import numpy as np
from im2im_core.journal import Journal
from im2im_core.project import Project
import im2im_core.journal as module
module.COMPACT_AFTER = 7
journal = Journal(Project(sys.argv[1]), sys.argv[2])
labels = np.zeros((300, 300), np.uint16)
journal.note_base(labels)
for value in range(1, 60000):
    labels[:, value % 300] = value
    labels[0, 0] = value
    journal.write_changes(labels)
    sys.stdout.write(f"{value}\\n")
    sys.stdout.flush()
"""


def test_fault_01_a_killed_writer_loses_nothing_that_was_written(project: Project) -> None:
    """20 kills at random times: what was reported as written is there, and no stroke is half there."""
    rng = random.Random(3)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(project.root), f"w{i}"], stdout=subprocess.PIPE)
        for i in range(20)
    ]
    for i, writer in enumerate(writers):
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(rng.uniform(0, 0.2))
        writer.send_signal(signal.SIGKILL)
        tail = writer.stdout.read()
        writer.wait()
        said = max((int(n) for n in tail.split(b"\n")[:-1] if n), default=1)
        heard: list[Event] = []
        restored = Journal(project, f"w{i}").restore(heard.append)
        value = int(restored[0, 0])
        assert heard == []
        assert value in (said, said + 1)
        expected = np.zeros((300, 300), np.uint16)
        for v in range(max(1, value - 299), value + 1):
            expected[:, v % 300] = v
        expected[0, 0] = value
        np.testing.assert_array_equal(restored, expected)
    assert len(list_journals(project)) == 20
