"""Forms: any settings go in and come out; what a person enters is taken over once, explained and reset."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from looks import nameless
from qtpy.QtCore import QLocale
from qtpy.QtGui import QFontMetrics
from qtpy.QtWidgets import QComboBox, QLineEdit, QPlainTextEdit, QPushButton, QToolButton, QWidget

from im2im_core import predict_options
from im2im_core._base import Config
from im2im_core.api import list_presets, load_preset
from im2im_core.bundle.metadata import BundleMetadata
from im2im_core.errors import ConfigError
from im2im_core.layouts import PreSplitLayout, SuffixLayout
from im2im_core.recipe import DataSettings, FcnSettings, NetworkSettings, Recipe
from im2im_core.recipe.fields import union_classes
from im2im_core.recipe.losses import Ramp
from im2im_core.recipe.network import BasicUNet, ClassNetwork, UNet
from im2im_core.recipe.training import SGD, AdamW, TrainingSettings
from napari_im2im._form import ConfigForm
from napari_im2im._form_draft import Unreadable, item_classes
from napari_im2im._form_parse import Limits, list_text, number_text, parse_list, parse_number, stepped
from napari_im2im._form_rows import FieldRow, Section
from napari_im2im._form_words import label_of, unit_of

NEEDED: dict[str, dict[str, Any]] = {
    "ClassNetwork": {"class_path": "monai.networks.nets.SegResNet"},
    "TrainedModel": {"model": "runs/nuclei"},
    "ClassLoss": {"class_path": "torch.nn.L1Loss"},
    "ClassPath": {"class_path": "torch.nn.L1Loss"},
    "ClassOptimizer": {"class_path": "torch.optim.RMSprop"},
    "ClassScheduler": {"class_path": "torch.optim.lr_scheduler.CosineAnnealingLR", "init_args": {"T_max": 1000}},
    "VoxelRescale": {"voxel_size": (1.0, 0.5, 0.5)},
    "DataSource": {"path": "more"},
    "Author": {"name": "A. Researcher"},
    "Citation": {"text": "A paper", "doi": "10.1/2"},
}
OTHER: dict[str, dict[str, Any]] = {
    "AdamW": {"lr": 1e-5, "betas": (0.8, 0.95)},
    "UNet": {"channels": (8, 16), "anisotropy": (True, False)},
    "DynUNet": {
        "filters": (8, 16, 16),
        "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2)),
        "kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3)),
        "budget": 1000.0,
    },
    "DataSettings": {
        "voxel_size": (1.0, 0.1, 0.1),
        "input_channels": (0, "DAPI", "1"),
        "patch": (64, 32),
        "more": ({"path": "a"},),
    },
    "TrainingSettings": {"minutes": 0.1, "batch": 3, "clip": None, "seed": 2**40},
    "PredictOptions": {"tile": (64, 64), "rescale": 0.123456789012345, "precision": "16", "seed_threshold": 0.3},
    "FcnSettings": {"losses": ({"kind": "dice"}, {"kind": "cross_entropy", "class_weights": (1.0, 2.0)}), "classes": 3},
    "ClassNetwork": {"init_args": {"init_filters": 8, "names": ["a", "b"], "deep": {"on": True}}},
    "SuffixLayout": {"source_suffix": "", "target_suffixes": ("_a b", "x,y")},
    "PreSplitLayout": {"inside": {"kind": "suffix"}},
    "Recipe": {"name": "画像", "network": {"kind": "unet"}, "training": {"optimizer": {"kind": "sgd"}}},
    "BundleMetadata": {"metrics": {"f1": 0.5}, "authors": ({"name": "A"},)},
}
"""Values that differ from the defaults."""


def below(cls: type[Config]) -> set[type[Config]]:
    found: set[Any] = {cls}
    for info in cls.model_fields.values():
        for child in union_classes(info.annotation) or item_classes(info.annotation):
            found |= set() if child in found else below(child)
    return found


CLASSES = sorted(
    below(Recipe) | below(predict_options.PredictOptions) | below(BundleMetadata), key=lambda c: c.__name__
)


def make(cls: type[Config], **more: Any) -> Config:
    return cls(**{**NEEDED.get(cls.__name__, {}), **more})


@pytest.fixture
def form(qtbot: Any) -> Callable[..., ConfigForm]:
    def make_form(model: Config, *essentials: str) -> ConfigForm:
        made = ConfigForm(model, essentials=essentials)
        qtbot.addWidget(made)
        made.show()
        return made

    return make_form


def unfold_all(widget: QWidget) -> None:
    done: set[Section] = set()
    while new := [s for s in widget.findChildren(Section) if s not in done]:
        for section in new:
            section.unfold()
            done.add(section)


def rows(form: ConfigForm) -> dict[str, FieldRow]:
    return {".".join(map(str, row.path)): row for row in form.findChildren(FieldRow) if row.isVisibleTo(form)}


def line(row: FieldRow) -> QLineEdit:
    return row.editor.findChild(QLineEdit)  # type: ignore[no-any-return]


def type_into(edit: QLineEdit, text: str) -> None:
    """Enter `text` as a person does, all at once."""
    edit.setText(text)
    edit.textEdited.emit(text)


def button(widget: QWidget, tooltip: str) -> Any:
    return next(b for b in widget.findChildren(QToolButton) if b.toolTip() == tooltip)


# ---- every settings class ------------------------------------------------------


def test_all_settings_classes_are_found() -> None:
    assert len(CLASSES) > 45
    assert {c.__name__ for c in CLASSES} >= set(NEEDED) | set(OTHER)


@pytest.mark.parametrize("cls", CLASSES)
def test_what_goes_in_comes_out(cls: type[Config], form: Callable[..., ConfigForm], qtbot: Any) -> None:
    settings, other = make(cls), make(cls, **OTHER.get(cls.__name__, {}))
    made = form(settings)
    unfold_all(made)
    assert made.value() == settings
    heard: list[Any] = []
    made.valueChanged.connect(heard.append)
    made.setValue(other)
    unfold_all(made)
    assert made.value() == other
    assert heard == ([other] if other != settings else [])
    made.setValue(other)
    assert len(heard) <= 1


@pytest.mark.parametrize("country", ["de_DE", "fr_FR", "ar_EG"])
def test_fault_42_numbers_are_the_same_in_every_country(
    country: str, form: Callable[..., ConfigForm], qtbot: Any, request: pytest.FixtureRequest
) -> None:
    """Shown with a point, read with a point or a comma."""
    before = QLocale()
    request.addfinalizer(lambda: QLocale.setDefault(before))
    QLocale.setDefault(QLocale(country))
    assert QLocale().toString(1.5) != "1.5"
    settings = AdamW(lr=1.5e-4, weight_decay=0.25)
    made = form(settings, "lr", "weight_decay")
    unfold_all(made)
    assert made.value() == settings
    shown = rows(made)
    assert line(shown["weight_decay"]).text() == "0.25"
    for typed in ("0.125", "0,125"):
        type_into(line(shown["weight_decay"]), typed)
        assert made.value() == settings.replace(weight_decay=0.125)


@pytest.mark.parametrize("cls", CLASSES)
def test_editors_show_what_they_were_given(cls: type[Config], form: Callable[..., ConfigForm]) -> None:
    """Every editor by itself gives back its value, so that touching one field never changes another."""
    made = form(make(cls, **OTHER.get(cls.__name__, {})))
    unfold_all(made)
    wrong = {
        name: (row.editor.value(), made.draft.get(row.path))
        for name, row in rows(made).items()
        if row.editor.value() != made.draft.get(row.path)
    }
    assert wrong == {}


@pytest.mark.parametrize("cls", CLASSES)
def test_tooltip_is_the_description(cls: type[Config], form: Callable[..., ConfigForm]) -> None:
    made = form(make(cls))
    unfold_all(made)
    for row in rows(made).values():
        if row.path[-1] != "kind":
            info = made.draft.info(row.path)
            assert info is not None
            assert row.toolTip() == row.editor.toolTip() == (info.description or "")


@pytest.mark.parametrize("name", [p.name for p in list_presets()])
def test_presets_round_trip(name: str, form: Callable[..., ConfigForm]) -> None:
    recipe = load_preset(name)
    made = form(Recipe())
    made.setValue(recipe)
    unfold_all(made)
    assert made.value() == recipe


# ---- what a person enters ------------------------------------------------------


def test_change_is_told_once_and_marked_and_reset(form: Callable[..., ConfigForm]) -> None:
    made = form(load_preset("instance_seg_2d"), "training.optimizer.lr")
    heard: list[Any] = []
    made.valueChanged.connect(heard.append)
    row = rows(made)["training.optimizer.lr"]
    reset = button(row, "Reset to default")
    assert not row._label.font().bold()
    assert not reset.isVisible()
    type_into(line(row), "1e-5")
    assert [r.training.optimizer.lr for r in heard] == [1e-5]
    assert row._label.font().bold()
    assert "•" in row._label.text()
    reset.click()
    assert len(heard) == 2
    assert made.value() == load_preset("instance_seg_2d")
    assert not row._label.font().bold()


def test_default_may_be_another_preset(form: Callable[..., ConfigForm]) -> None:
    made = form(load_preset("instance_seg_2d"), "training.epochs")
    made.setValue(load_preset("semantic_seg_3d"))
    assert "•" in rows(made)["training.epochs"]._label.text()
    made.setDefault(load_preset("semantic_seg_3d"))
    assert "•" not in rows(made)["training.epochs"]._label.text()


def test_wrong_value_is_explained_and_stays(form: Callable[..., ConfigForm], qtbot: Any) -> None:
    made = form(Recipe(), "training.optimizer.lr")
    heard: list[Any] = []
    problems: list[Any] = []
    made.valueChanged.connect(heard.append)
    made.problemsChanged.connect(problems.append)
    row = rows(made)["training.optimizer.lr"]
    type_into(line(row), "-1")
    assert heard == []
    assert list(problems[-1]) == ["training.optimizer.lr"]
    with pytest.raises(ConfigError, match="learning rate: Must be greater than 0"):
        made.value()
    qtbot.waitUntil(lambda: row._error is not None and row._error.isVisible(), timeout=30_000)
    assert row._error is not None
    assert "greater than 0" in row._error.text()
    assert line(row).text() == "-1"
    type_into(line(row), "abc")
    assert "not a number" in made.problems()["training.optimizer.lr"]
    type_into(line(row), "0.5")
    assert made.value().training.optimizer.lr == 0.5  # type: ignore[attr-defined]
    assert not row._error.isVisible()
    assert made.problems() == {}


def test_rule_between_sections_is_told_at_the_top(form: Callable[..., ConfigForm], qtbot: Any) -> None:
    made = form(load_preset("instance_seg_2d"), "data.dimensions")
    rows(made)["data.dimensions"].editor.findChild(QComboBox).setCurrentIndex(1)
    qtbot.waitUntil(lambda: made._top.isVisible(), timeout=30_000)
    assert "“patch” (128, 128) has 2 sizes" in made._top.text()
    made.setValue(Recipe())
    assert not made._top.isVisible()
    assert made.value() == Recipe()


def test_kinds_keep_their_values(form: Callable[..., ConfigForm]) -> None:
    made = form(Recipe(training=TrainingSettings(optimizer=AdamW(lr=0.25))))
    unfold_all(made)
    combo = rows(made)["training.optimizer.kind"].editor.findChild(QComboBox)
    heard: list[Any] = []
    made.valueChanged.connect(heard.append)
    combo.setCurrentIndex(combo.findData("sgd") if combo.findData("sgd") >= 0 else combo.findText("SGD"))
    assert heard[-1].training.optimizer == SGD()
    type_into(line(rows(made)["training.optimizer.momentum"]), "0.5")
    combo.setCurrentIndex(combo.findText("AdamW"))
    assert heard[-1].training.optimizer == AdamW(lr=0.25)
    combo.setCurrentIndex(combo.findText("SGD"))
    assert heard[-1].training.optimizer == SGD(momentum=0.5)
    assert len(heard) == 4
    assert "training.optimizer.weight_decay" in rows(made)


def test_kind_with_a_needed_value_asks_for_it(form: Callable[..., ConfigForm]) -> None:
    made = form(Recipe(), "network")
    combo = rows(made)["network.kind"].editor.findChild(QComboBox)
    combo.setCurrentIndex(combo.findText("any class"))
    assert made.problems() == {"network.class_path": "Needs a value"}
    path = line(rows(made)["network.class_path"])
    path.setText("monai.networks.nets.SegResNet")
    mapping = rows(made)["network.init_args"].editor.findChild(QPlainTextEdit)
    mapping.setPlainText("init_filters: 8")
    assert made.value().network == ClassNetwork(  # type: ignore[attr-defined]
        class_path="monai.networks.nets.SegResNet", init_args={"init_filters": 8}
    )
    mapping.setPlainText("init_filters: [")
    assert "not valid YAML" in made.problems()["network.init_args"]
    assert mapping.toPlainText() == "init_filters: ["


def test_essential_follows_the_kind_it_belongs_to(form: Callable[..., ConfigForm]) -> None:
    made = form(Recipe(), "network.kind", "network.features", "network.channels")
    assert set(rows(made)) == {"network.kind", "network.features"}
    made.setValue(Recipe(network=UNet(channels=(4, 8))))
    assert set(rows(made)) == {"network.kind", "network.channels"}
    assert line(rows(made)["network.channels"]).text() == "4, 8"
    made.setValue(Recipe(network=BasicUNet()))
    assert set(rows(made)) == {"network.kind", "network.features"}


def test_budgets_exclude_each_other(form: Callable[..., ConfigForm]) -> None:
    made = form(load_preset("instance_seg_2d"), "training.minutes", "training.epochs")
    row = rows(made)["training.minutes"]
    row.editor._box.click()
    value = made.value()
    assert isinstance(value, Recipe)
    assert (value.training.minutes, value.training.epochs) == (1.0, None)
    assert rows(made)["training.epochs"].editor.value() is None


def test_automatic_is_a_box(form: Callable[..., ConfigForm]) -> None:
    made = form(TrainingSettings(), "batch")
    editor = rows(made)["batch"].editor
    assert editor._box.text() == "auto"
    editor._box.click()
    assert made.value() == TrainingSettings(batch=1)
    editor._inner.stepBy(3)
    assert made.value() == TrainingSettings(batch=4)
    editor._inner.stepBy(-10)  # below the limit: nothing happens
    editor._box.click()
    assert made.value() == TrainingSettings()
    editor._box.click()
    assert made.value() == TrainingSettings(batch=4)


def test_everything_inside_of_an_unfolded_form_has_a_name_and_a_tooltip(form: Callable[..., ConfigForm]) -> None:
    widget = form(load_preset("instance_seg_2d"))
    unfold_all(widget)
    boxes = [box for box in widget.findChildren(QComboBox) if box.isVisible()]
    assert len(boxes) > 10
    assert nameless(widget) == []
    rows = {row.path: row for row in widget.findChildren(FieldRow)}
    (box,) = rows["training", "precision"].findChildren(QComboBox)
    assert box.accessibleName() == "precision"
    assert box.toolTip() == rows["training", "precision"].toolTip()


def test_items_are_added_and_removed(form: Callable[..., ConfigForm]) -> None:
    made = form(FcnSettings())
    unfold_all(made)
    add = next(b for b in made.findChildren(QPushButton) if b.text() == "Add")
    add.click()
    add.click()
    combo = rows(made)["losses.0.kind"].editor.findChild(QComboBox)
    combo.setCurrentIndex(combo.findText("Dice"))
    assert [loss.kind for loss in made.value().losses] == ["dice", "l1"]  # type: ignore[attr-defined]
    button(made, "Remove").click()
    assert [loss.kind for loss in made.value().losses] == ["l1"]  # type: ignore[attr-defined]


def test_the_schedule_of_a_loss_is_chosen_within_it(form: Callable[..., ConfigForm]) -> None:
    made = form(FcnSettings(losses=({"kind": "l1"}, {"kind": "fourier_ring"})))  # type: ignore[arg-type]
    unfold_all(made)
    combo = rows(made)["losses.1.schedule.kind"].editor.findChild(QComboBox)
    combo.setCurrentIndex(combo.findText("ramp"))
    unfold_all(made)
    assert made.value().losses[1].schedule == Ramp()  # type: ignore[attr-defined]
    assert made.value().losses[0].schedule.kind == "constant"  # type: ignore[attr-defined]
    assert {f"losses.1.schedule.{name}" for name in ("start", "end", "first", "last")} <= set(rows(made))


def test_optional_settings_can_be_left_out(form: Callable[..., ConfigForm]) -> None:
    made = form(PreSplitLayout(), "inside")
    combo = rows(made)["inside.kind"].editor.findChild(QComboBox)
    assert combo.currentText() == "not set"
    combo.setCurrentIndex(combo.findText("suffixes"))
    assert made.value() == PreSplitLayout(inside=SuffixLayout())
    combo.setCurrentIndex(0)
    assert made.value() == PreSplitLayout()
    made = form(DataSettings(), "voxel_size")
    type_into(line(rows(made)["voxel_size"]), "2")
    line(rows(made)["voxel_size"]).setText("2, 0.5")
    assert "3 values" in made.problems()["voxel_size"]
    line(rows(made)["voxel_size"]).setText("")
    assert made.value() == DataSettings()


# ---- search, order, speed ------------------------------------------------------


def test_essentials_stand_first_and_only_once(form: Callable[..., ConfigForm]) -> None:
    made = form(load_preset("instance_seg_2d"), "training.epochs", "data.patch")
    assert list(rows(made)) == ["training.epochs", "data.patch"]
    unfold_all(made)
    names = [".".join(map(str, row.path)) for row in made.findChildren(FieldRow)]
    assert len(names) == len(set(names))
    assert "schema_version" not in names
    assert len(names) > 80


def test_search_shows_what_it_finds_and_folds_again(form: Callable[..., ConfigForm], qtbot: Any) -> None:
    made = form(load_preset("instance_seg_2d"), "training.epochs")
    made._search.setText("gaussian noi")
    qtbot.waitUntil(lambda: list(rows(made)) == ["data.augmentation.noise"], timeout=30_000)
    made._search.setText("learning rate")
    qtbot.waitUntil(lambda: "training.optimizer.lr" in rows(made), timeout=30_000)
    assert "data.augmentation.noise" not in rows(made)
    made._search.clear()
    qtbot.waitUntil(lambda: list(rows(made)) == ["training.epochs"], timeout=30_000)


@pytest.mark.timing
def test_every_word_of_a_label_fits_beside_its_editor(form: Callable[..., ConfigForm]) -> None:
    shown = form(make(CLASSES[0]))
    unfold_all(shown)
    label = next(iter(rows(shown).values()))._label
    font = label.font()
    font.setBold(True)  # as it is where the value is changed
    words = {word for cls in CLASSES for name in cls.model_fields for word in label_of(name).split()}
    widest = max(words, key=QFontMetrics(font).horizontalAdvance)
    assert QFontMetrics(font).horizontalAdvance(widest) + 2 <= label.width(), widest


def test_opens_at_once(form: Callable[..., ConfigForm]) -> None:
    recipe = load_preset("instance_seg_2d")
    essentials = ("data.path", "training.epochs", "training.minutes", "network.kind", "training.optimizer.lr")
    form(recipe, *essentials)
    start = time.process_time()
    form(recipe, *essentials)
    assert time.process_time() - start <= 0.15


# ---- numbers and lists ---------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "whole", "value"),
    [
        ("1e-3", False, 1e-3),
        ("0,5", False, 0.5),
        (" 12 ", True, 12),
        ("-4", True, -4),
        ("9007199254740993", True, 2**53 + 1),
    ],
)
def test_numbers_are_read(text: str, whole: bool, value: float) -> None:
    assert parse_number(text, whole) == value


@pytest.mark.parametrize("value", [1e-5, 0.1 + 0.2, 1 / 3, 1e22, 5e-324, 3.0, 0.003, 2**60])
def test_number_text_is_exact(value: float) -> None:
    assert parse_number(number_text(value), isinstance(value, int)) == value


@pytest.mark.parametrize(
    ("value", "steps", "after"),
    [
        (0.003, 1, 0.004),
        (0.001, -1, 0.0009),
        (0.0009, 1, 0.001),
        (1.0, 1, 2.0),
        (0.0, 1, 0.1),
        (-0.1, 1, -0.09),
        (30.0, 2, 50.0),
    ],
)
def test_arrows_change_the_first_digit(value: float, steps: int, after: float) -> None:
    assert stepped(value, steps, whole=False) == after


@pytest.mark.parametrize(
    ("annotation", "value", "text"),
    [
        (tuple[float, float, float], (1.0, 0.1, 0.1), "1, 0.1, 0.1"),
        (tuple[bool, ...], (True, False), "yes, no"),
        (tuple[str, ...], ("a b", "x,y", "", ' "q" '), None),
        (tuple[int | str, ...], (0, "DAPI", "1"), '0, DAPI, "1"'),
        (tuple[float | None, float], (None, 2.0), "none, 2"),
        (tuple[int, ...], (), ""),
        (tuple[tuple[int, ...], ...], ((1, 2, 2), (2, 2, 2)), "1×2×2, 2×2×2"),
    ],
)
def test_lists_round_trip(annotation: Any, value: tuple[Any, ...], text: str | None) -> None:
    assert text in (None, list_text(value))
    assert parse_list(list_text(value), annotation) == value


@pytest.mark.parametrize("text", ["1x2x2, 2x2x2", "1 2 2,2 2 2", "1 × 2 × 2, 2*2*2"])
def test_lists_within_a_list_are_read_as_people_write_them(text: str) -> None:
    assert parse_list(text, tuple[tuple[int, ...], ...]) == ((1, 2, 2), (2, 2, 2))
    wrong = parse_list("1×a", tuple[tuple[int, ...], ...])
    assert isinstance(wrong, Unreadable)
    assert "“a” is not a whole number" in wrong.reason


def test_limits_begin_inside() -> None:
    assert Limits(gt=0).start() == 1.0
    assert Limits(ge=0, lt=1).start() == 0.5
    assert Limits(ge=3).start() == 3
    assert Limits(ge=8, le=64).start() == 8


def test_units_come_from_the_descriptions() -> None:
    fields = TrainingSettings.model_fields
    assert unit_of("minutes", fields["minutes"].description or "") == "min"
    assert unit_of("checkpoint_minutes", fields["checkpoint_minutes"].description or "") == "min"
    assert unit_of("blur", "Largest standard deviation of a Gaussian blur, pixels.") == "px"
    assert unit_of("voxel_size", "Voxel size Z, Y, X in micrometres; overrides what the files say.") == "µm"
    assert unit_of("seed", "Seed of the draw.") == ""


def test_every_network_has_its_fields(form: Callable[..., ConfigForm]) -> None:
    for cls in union_classes(NetworkSettings):
        made = form(Recipe(network=make(cls)), "network")
        shown = {name.removeprefix("network.") for name in rows(made)}
        assert shown == set(cls.model_fields)
