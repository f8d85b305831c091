"""A whole training in about two minutes, offline: simulate, train, predict, score (``python -m im2im_core.demo``)."""

from __future__ import annotations

import argparse
import logging
import shlex
import shutil
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from im2im_core.evaluation import Report

logger = logging.getLogger(__name__)

SHAPE = (256, 256)
TRAINING_IMAGES = 16
NEW_IMAGES = 2
SEED = 7


@dataclass(frozen=True)
class Result:
    """One image the network never saw, with what it made of it."""

    name: str
    image: NDArray[Any]
    truth: NDArray[Any]
    labels: NDArray[Any]
    scores: Report


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code of the demonstration; says where everything is and what to do next."""
    from im2im_core.errors import Im2ImError, Stopped

    parser = argparse.ArgumentParser(prog="python -m im2im_core.demo", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="budget of the training (default: 2)")
    parser.add_argument("--folder", type=Path, default=None, help="where everything is written; default: demo-DATE")
    parser.add_argument("--gui", action="store_true", help="open the result in napari")
    args = parser.parse_args(argv)
    folder = args.folder or Path(f"im2im-demo-{time.strftime('%Y%m%d-%H%M%S')}")
    try:
        results, model = demonstrate(folder.resolve(), args.minutes)
    except Im2ImError as error:
        sys.stderr.write(f"demo: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("demo: stopped\n")
        return Stopped.exit_code
    if args.gui:
        open_viewer(results, model)
        import_module("napari").run()
    return 0


def demonstrate(folder: Path, minutes: float) -> tuple[list[Result], Path]:
    """Results on images not trained on and the model, after a training of `minutes` on simulated nuclei.

    Raises
    ------
    Stopped
        The training was interrupted; the message says how it goes on.
    """
    from im2im_core import api
    from im2im_core.errors import Stopped
    from im2im_core.microscope import write_dataset
    from im2im_core.progress import reporter
    from im2im_core.project import Project

    started = time.monotonic()
    _say(f"1/4 simulating {TRAINING_IMAGES} images of nuclei with exact truth")
    project = Project.create(folder / "project")
    write_dataset(folder / "training", "instance_segmentation", count=TRAINING_IMAGES, shape=SHAPE, seed=SEED)
    write_dataset(
        folder / "new", "instance_segmentation", count=NEW_IMAGES, shape=SHAPE, seed=SEED, start=TRAINING_IMAGES
    )
    _say(f"2/4 training the preset instance_seg_2d for {minutes:g} min")
    recipe = api.load_preset("instance_seg_2d").override(
        {"data.path": str(folder / "training"), "training.minutes": minutes, "name": "demo"}
    )
    with reporter(as_json=False) as on_event:
        try:
            run = api.train(recipe, project=project, name="demo", on_event=on_event)
        except Stopped:  # before the first step
            run = project.runs()[-1]
    if run.state != "finished":
        raise Stopped(
            f"The training is {run.state}; everything up to its last step is saved",
            f"Go on with: {command('im2im', 'resume', run.folder)}",
        )
    _say("3/4 predicting images that were not trained on")
    results = [_predict(run.model, path, folder) for path in sorted((folder / "new" / "IM").iterdir())]
    _say("4/4 drawing")
    picture = folder / "input_truth_prediction.png"
    draw(results, picture)
    _tell(results, folder, run.model, picture, time.monotonic() - started)
    return results, run.model


def _predict(model: Path, path: Path, folder: Path) -> Result:
    from im2im_core import api

    target = folder / "prediction" / path.name
    target.parent.mkdir(exist_ok=True)
    api.predict(model, path, to=target)
    truth_path = folder / "new" / "GT" / path.name
    image, truth, labels = (_plane(p) for p in (path, truth_path, target))
    return Result(path.name, image, truth, labels, api.evaluate(target, truth_path, kind="labels"))


def _plane(path: Path) -> NDArray[Any]:
    from im2im_core.io import open_image

    plane: NDArray[Any] = open_image(path).read()[0, 0, 0]
    return plane


def draw(results: Sequence[Result], path: Path) -> None:
    """PNG with one row per image: input, truth and prediction, objects outlined."""
    import numpy as np
    from PIL import Image

    rows = [
        np.concatenate([_outlined(r.image, None), _outlined(r.image, r.truth), _outlined(r.image, r.labels)], 1)
        for r in results
    ]
    Image.fromarray(np.concatenate(rows)).resize((6 * SHAPE[1], 2 * len(rows) * SHAPE[0])).save(path)


def _outlined(image: NDArray[Any], labels: NDArray[Any] | None) -> NDArray[Any]:
    import numpy as np
    from skimage.segmentation import find_boundaries

    low, high = np.percentile(image, (1, 99.8))
    grey = np.clip((image - low) / max(high - low, 1e-6), 0, 1) * 255
    colour = np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)
    if labels is not None:
        colour[find_boundaries(labels.astype(np.int64), mode="inner")] = (255, 196, 0)
    return colour


def _tell(results: Sequence[Result], folder: Path, model: Path, picture: Path, seconds: float) -> None:
    from im2im_core.progress import duration

    for result in results:
        _say(f"\n{result.name}: {int(result.truth.max())} objects in truth, {int(result.labels.max())} found")
        _say(result.scores.table())
    image, out = folder / "new" / "IM" / results[0].name, folder / "labels.tif"
    _say(
        f"\nDone in {duration(seconds)}.\n  picture      {picture}\n  predictions  {folder / 'prediction'}\n"
        f"  model        {model}\n\nNext, with these images or your own:\n"
        f"  {command('im2im', 'predict', model, image, '-o', out)}\n"
        f"  {command('im2im', 'train', 'instance_seg_2d', '--data.path', folder / 'training')}\n"
        f"  {command('napari')}\n    then Plugins > napari-im2im"
    )


def command(program: str, *words: object) -> str:
    """Shell command that works where it is pasted: the program of this environment, every word quoted."""
    found = shutil.which(program, path=str(Path(sys.executable).parent))
    start = [found] if found else [sys.executable, "-m", {"im2im": "im2im_core.cli"}.get(program, program)]
    return shlex.join([*start, *map(str, words)])


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def open_viewer(results: Sequence[Result], model: Path) -> Any:
    """Viewer with the results side by side and the Predict panel with the model.

    napari is imported by name: the core never depends on the viewer, only this command opens one.
    """
    viewer = import_module("napari").Viewer(title="napari-im2im demo")
    for column, result in enumerate(results):
        place = {"translate": (0.0, 1.05 * SHAPE[1] * column)}
        viewer.add_image(result.image, name=result.name, **place)
        viewer.add_labels(result.truth, name=f"{result.name} truth", visible=False, **place)
        viewer.add_labels(result.labels, name=f"{result.name} prediction", opacity=0.5, **place)
    viewer.reset_view()
    _, panel = viewer.window.add_plugin_dock_widget("napari-im2im", "Predict")
    panel.set_model(str(model))
    return viewer


if __name__ == "__main__":
    sys.exit(main())
