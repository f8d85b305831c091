"""What can go wrong and what is promised then: cases that `docs/reliability.md` lists and tests are named after.

A test `test_fault_07_…` belongs to case 7, `test_fault_40_41_…` to cases 40 and 41.
"""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """One thing that can go wrong."""

    fault: str
    promise: str


CASES: dict[int, Case] = {
    1: Case(
        "`kill -9` while it trains, or while labels are painted",
        "The newest complete checkpoint loads and resuming goes on from it exactly; at most one checkpoint interval "
        "is lost. Painted labels are on disk within two seconds.",
    ),
    2: Case(
        "`kill -9` while a checkpoint is written, `TMPDIR` on another file system",
        "No checkpoint is ever damaged: files are written in their own folder and renamed. What is left over is "
        "removed at the next start.",
    ),
    3: Case(
        "Power loss",
        "Every file is flushed before its rename and its folder after it; a checkpoint is listed after both of its "
        "files are safe.",
    ),
    4: Case(
        "Pause and resume",
        "On the CPU the weights are equal to those of an uninterrupted training, bit for bit, whatever the workers.",
    ),
    5: Case(
        "Disk full while a checkpoint, a log or painted labels are written",
        "Exit code 4 with the megabytes needed and free; earlier checkpoints are intact, the partial file is gone, "
        "the run can be resumed.",
    ),
    6: Case(
        "Disk full while a prediction is written",
        "Space is checked before and reserved, never mapped beyond the disk (no SIGBUS); exit code 4, no partial "
        "output, the prediction can be resumed.",
    ),
    7: Case("Read-only folder", "Refused before the work begins, exit code 4, with the folder by name."),
    8: Case(
        "The output exists",
        "Refused without `--overwrite`; with it, the new file is complete before it replaces the old one, whenever "
        "the process is killed.",
    ),
    9: Case(
        "File cut short",
        "An error that names what is expected and found; never fewer planes or zeros instead of pixels.",
    ),
    10: Case(
        "Damaged cache entry, chunk, journal block or checkpoint",
        "Made again where it can be, else an error that names it; flipped bytes cause no other kind of error.",
    ),
    11: Case(
        "NaN or infinite pixels or losses",
        "An error by default, filled on request; a training ends after some such steps and keeps its last good state.",
    ),
    12: Case("A partner image is missing", "All are listed by name, exit code 3, before the training."),
    13: Case(
        "Shapes of image and target differ", "The pair is named with both shapes, exit code 3, before the training."
    ),
    14: Case("Constant image", "Normalisation and training stay finite; the check of the data says so."),
    15: Case(
        "Image smaller than the patch or tile", "It is padded, which is said; results have the shape of the image."
    ),
    16: Case("No foreground, in some or all images", "Patches are random then; no endless loop, and a warning."),
    17: Case(
        "Labels above 65535, negative or fractional", "Ids are kept as uint32 and never wrap; what is no id is refused."
    ),
    18: Case("Axes in doubt: RGB or channels, Z or T", "A question or an error, never a guess; told axes are used."),
    19: Case(
        "Any type of pixel, any byte order", "Read and written without overflow, or refused with the types that work."
    ),
    20: Case("Voxel size missing or odd", "Recorded as unknown, and warned of."),
    21: Case(
        "Viewer closed while it trains or predicts",
        "It asks: the training goes on and is found again (default), or stops with a checkpoint. Predictions end.",
    ),
    22: Case(
        "Layer deleted, edited or renamed meanwhile",
        "The work goes on with the pixels of the moment it was started; no exception.",
    ),
    23: Case("Panel closed meanwhile", "Late results are dropped; nothing is left behind."),
    24: Case(
        "Any exception in a job, RuntimeError, MemoryError and KeyboardInterrupt among them",
        "It is shown with its cure, recorded in the run, and the button works again.",
    ),
    25: Case("Cancel", "Answered within a second; a process that does not listen is killed. What is finished is kept."),
    26: Case(
        "Two trainings at once, or in one folder",
        "First come first served on a device; a run has one owner. Locks of the dead do not count.",
    ),
    27: Case(
        "The process crashes, is killed or outgrows its memory",
        "The viewer lives and says what happened; the run can be resumed, the next prediction works.",
    ),
    28: Case(
        "Out of memory while predicting",
        "Tiles are halved, then the CPU takes over; the result is the same and the tile is recorded.",
    ),
    29: Case(
        "Out of memory while training",
        "The batch is divided and the same is learned; where one patch is too much, exit code 4 with the cure.",
    ),
    30: Case(
        "Pickles that run code: checkpoints, weights, arrays, archives",
        "Refused with exit code 5 and never executed; there is no second way to load them.",
    ),
    31: Case(
        "Checkpoints whose entries name code (`_instantiator`, `_class_path`, `hyper_parameters`)",
        "Such entries are not looked at; nothing is imported or called.",
    ),
    32: Case(
        "Import path to arbitrary code in a recipe",
        "Refused before anything is imported, exit code 5; what was found must be a class of a trusted module.",
    ),
    33: Case(
        "YAML with tags, billions of laughs, 100 MB, keys that stand twice",
        "Refused within limits of size, aliases and depth, quickly and with little memory.",
    ),
    34: Case("Zip entries that lead elsewhere, links, doubled names", "Refused; nothing is written."),
    35: Case("Zip bombs", "Bytes are counted while streaming: total, ratio and number are limited."),
    36: Case(
        "Model package that brings Python code",
        "Runs only after consent to the hash of that very file, which the message names.",
    ),
    37: Case("A file differs from its recorded hash", "Refused."),
    38: Case(
        "TorchScript, ONNX and allowed Python code of somebody else",
        "Run in a process of their own, from the viewer, the command line and Python alike; memory and the time of an "
        "answer are limited, on Linux by the system. TorchScript and ONNX can open no file there on the CPU of Linux; "
        "everywhere, TorchScript that has words for files is refused and ONNX reads none that the description does not "
        "name. Its death or nonsense is an error in words.",
    ),
    39: Case(
        "Names with spaces, `#`, `%`, line breaks, 200 letters, any script",
        "Everything works there; names that Windows cannot have are refused for runs.",
    ),
    40: Case(
        "Ctrl-C once, twice", "Once: the step is finished and saved, exit code 130. Twice: at once; files are valid."
    ),
    41: Case(
        "SIGTERM or SIGUSR1 of a scheduler",
        "Saved at the next step boundary, also inside validation or checkpoint; exit code 143, resuming is exact.",
    ),
    42: Case("Other clock, locale, umask", "Same results; numbers are written with a point."),
    43: Case(
        "A process that prepares patches is killed",
        "Replaced by fewer ones with a warning; no patch is lost or seen twice.",
    ),
    44: Case(
        "One of many images cannot be read", "The others are done, the failed ones listed, exit code 3 at the end."
    ),
    45: Case("Prediction interrupted", "`--resume` makes only what is missing; outputs are equal, bit for bit."),
    46: Case("Inputs", "Never changed: neither their bytes nor their times."),
}

UNRUN = {
    "Windows": (
        "Locks are byte locks far behind the content, processes get a group of their own and a low priority by flags, "
        "a crash code is told in words, reserved names are refused, folders are not flushed. Memory and time of models "
        "of others are watched from outside, as the system sets no limits.",
        (
            "tests/core/test_platform.py",
            "tests/core/test_confined.py::test_fault_38_too_much_memory_ends_it",
            "tests/core/test_confined.py::test_fault_38_too_much_time_ends_it",
            "tests/core/test_runs.py::test_fault_39_a_name_that_leads_elsewhere_is_refused_with_a_cure",
            "tests/core/test_archive.py::test_fault_34_hostile_names",
        ),
    ),
    "macOS": (
        "Processes are told apart by psutil; disk is reserved by writing, as there is no posix_fallocate. Models of "
        "others can write no file; their memory and time are watched from outside.",
        ("tests/core/test_platform.py", "tests/core/test_confined.py::test_fault_38_too_much_memory_ends_it"),
    ),
    "GPU": (
        "Out of memory on a device is raised by the tests at a chosen size; the way to the CPU is walked without one. "
        "Limits of the system hold models of others on the CPU alone, as drivers need files and room; elsewhere their "
        "memory and time are watched.",
        (
            "tests/engine/test_foreign_process.py::test_fault_38_limits_by_kind_and_device",
            "tests/engine/test_predict.py::test_fault_28_out_of_memory_halves_the_tile",
            "tests/engine/test_predict.py::test_fault_28_then_the_cpu",
            "tests/engine/test_faults_training.py::test_fault_29_out_of_memory_halves_the_batch_and_learns_the_same",
        ),
    ),
}
"""Where the tests have not run: what differs there, and the files or tests that walk those branches on Linux."""
