"""Gate figures of prediction: throughput against the bare network, memory against the size of the image.

    python benchmarks/prediction.py [--size 4096] [--large 16384] [--rounds 5] [--device auto]

Throughput: an OME-Zarr in, an OME-Zarr out, by a BasicUNet; the bare batched forward over the same tiles
runs interleaved with it; the figure is the ratio of the medians, bare / predict, and must be 0.9 or more.
Memory: peak resident size of a fresh process for each image size; the growth must stay below 100 MB.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from monai.networks.nets import BasicUNet
from quality import add_results, machine
from torch import nn

from im2im_core.engine.frameworks.contract import Framework, OutputSpec
from im2im_core.engine.predict import Predictor
from im2im_core.image import ImageInfo
from im2im_core.inference import Inference, InputDescription, Shapes
from im2im_core.io import create_output, open_image
from im2im_core.normalize import Percentile
from im2im_core.predict_options import PredictOptions
from im2im_core.recipe.data import NoRescale
from im2im_core.recipe.framework import FcnSettings
from im2im_core.recipe.network import BasicUNet as BasicUNetSettings

HALO, DIVISOR = 64, 16


class Denoiser(Framework):
    """One image from one image by a BasicUNet."""

    outputs = (OutputSpec("prediction", "image", 1),)
    results = outputs

    def __init__(self, features: tuple[int, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.shapes = Shapes(dimensions=2, input_channels=1)
        self.net = BasicUNet(2, 1, 1, features, norm=("batch", {"affine": True})).eval()

    def translate(self, x, context):
        return {"prediction": self.net(x)}

    def postprocess(self, maps, context):
        return dict(maps)

    def encode(self, targets, weight):
        raise NotImplementedError

    def players(self):
        raise NotImplementedError

    def losses(self, batch, player, context):
        raise NotImplementedError

    def loss_weights(self):
        raise NotImplementedError


class Pointwise(Denoiser):
    """No network to speak of: what is measured is what the prediction itself holds in memory."""

    def __init__(self, features: tuple[int, ...]) -> None:
        super().__init__((4,) * 6)
        self.net = nn.Conv2d(1, 1, 3, padding=1)


def make_predictor(kind: type[Denoiser], features: tuple[int, ...], device: str) -> Predictor:
    framework = kind(features)
    inference = Inference(
        name="benchmark",
        shapes=framework.shapes,
        input=InputDescription(normalization=Percentile(), rescale=NoRescale()),
        framework=FcnSettings(),
        network=BasicUNetSettings(),
        patch=(128, 128),
        divisor=(DIVISOR, DIVISOR),
        halo=(HALO, HALO),
        outputs=(),
    )
    return Predictor.from_framework(framework, inference, device)


def write_input(path: Path, size: int) -> Path:
    """A noisy pattern, written in bands so that making it needs no memory."""
    info = ImageInfo("input", (1, 1, 1, size, size), np.dtype(np.uint16), "YX", voxel_size=(None, 0.3, 0.3))
    rng = np.random.default_rng(0)
    with create_output(path, info, chunks=(1, 1, 1, 512, 512)) as writer:
        for y in range(0, size, 512):
            stop = min(y + 512, size)
            band = rng.integers(100, 4000, (1, 1, 1, stop - y, size), dtype=np.uint16)
            writer.write((slice(0, 1), slice(0, 1), slice(0, 1), slice(y, stop), slice(0, size)), band)
    return path


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bare_forward(predictor: Predictor, tile: list[int], batch: int, tiles: int) -> float:
    """Seconds of the network alone for as many tiles of the same size."""
    net, device = predictor.framework.to(predictor.device).eval(), predictor.device
    x = torch.randn(batch, 1, tile[1], tile[2], device=device)
    synchronize(device)
    start = time.perf_counter()
    with torch.inference_mode():
        for first in range(0, tiles, batch):
            net.net(x[: min(batch, tiles - first)])
    synchronize(device)
    return time.perf_counter() - start


def throughput(folder: Path, size: int, rounds: int, features: tuple[int, ...], device: str) -> dict:
    predictor = make_predictor(Denoiser, features, device)
    image = write_input(folder / "in.ome.zarr", size)
    counted: list[int] = []
    bare, whole = [], []
    facts: dict = {}
    for number in range(rounds + 1):  # the first round warms up
        done: list[int] = []
        start = time.perf_counter()
        found = predictor.predict(
            open_image(image),
            to=folder / "out.ome.zarr",
            options=PredictOptions(overwrite=True),
            on_event=lambda e, done=done: done.append(getattr(e, "total", 0) or 0),
        )
        seconds = time.perf_counter() - start
        facts, counted = found.layers[0].facts, done
        alone = bare_forward(predictor, facts["tile"], facts["batch"], max(counted))
        if number:
            bare.append(alone)
            whole.append(seconds)
    tiles = max(counted)
    return {
        "size": size,
        "tiles": tiles,
        "tile": facts["tile"],
        "batch": facts["batch"],
        "device": facts["device"],
        "bare_seconds": bare,
        "predict_seconds": whole,
        "cost": tiles * facts["tile"][1] * facts["tile"][2] / size**2,
        "ratio": statistics.median(bare) / statistics.median(whole),
        "gate": 0.9,
    }


def memory(folder: Path, sizes: tuple[int, int], device: str) -> dict:
    peaks = {}
    for size in sizes:
        image = write_input(folder / f"memory{size}.ome.zarr", size)
        command = [sys.executable, __file__, "--measure", str(image), "--device", device]
        peaks[size] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["peak_mb"]
        shutil.rmtree(image)
    return {"peak_mb": peaks, "growth_mb": peaks[sizes[1]] - peaks[sizes[0]], "gate_mb": 100}


def measure(image: str, device: str) -> None:
    """Peak memory of this process after one prediction."""
    out = Path(image).with_name("measured.ome.zarr")
    predictor = make_predictor(Pointwise, (4,) * 6, device)
    predictor.predict(open_image(image), to=out, options=PredictOptions(tile=(1024, 1024), batch=1))
    shutil.rmtree(out)
    # getrusage would report the parent's peak where that was larger: it survives exec.
    status = Path("/proc/self/status").read_text()
    print(json.dumps({"peak_mb": int(status.partition("VmHWM:")[2].split()[0]) / 1024}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--large", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--features", type=int, nargs=6, default=[32, 32, 64, 128, 256, 32])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--part", choices=["all", "throughput", "memory"], default="all")
    add_results(parser)
    parser.add_argument("--measure")
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.device)
        return
    result: dict = {
        "command": f"python benchmarks/prediction.py --size {arguments.size} --rounds {arguments.rounds}",
        "seed": 0,
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    with tempfile.TemporaryDirectory(prefix="im2im-benchmark-") as name:
        folder = Path(name)
        if arguments.part != "memory":
            result["throughput"] = throughput(
                folder, arguments.size, arguments.rounds, tuple(arguments.features), arguments.device
            )
        if arguments.part != "throughput":
            result["memory"] = memory(folder, (arguments.size, arguments.large), arguments.device)
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / "prediction.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
