"""Devices by name: which there are, which is meant, and torch as it was before a job used it."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from im2im_core.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

CURE = "Use another device, or auto"
_NAME = re.compile(r"cpu|mps|cuda(:\d+)?")


def choose_device(wanted: str) -> str:
    """Device that `wanted` means on this machine; auto takes CUDA, then MPS, then the CPU.

    Raises
    ------
    ConfigError
        `wanted` is not the name of a device.
    ResourceError
        This machine has no such device, or this torch cannot use it.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    if not _NAME.fullmatch(wanted):
        raise ConfigError(f"There is no device {wanted!r}", "Use auto, cpu, cuda, cuda:1 or mps")
    kind, _, number = wanted.partition(":")
    if kind == "cuda":
        _require_cuda(wanted, int(number or 0))
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ResourceError("Device mps cannot be used: torch finds no Apple GPU", CURE)
    return wanted


def _require_cuda(wanted: str, index: int) -> None:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= count:
        found = f"only {', '.join(f'cuda:{i}' for i in range(count))}" if count else "no CUDA device"
        raise ResourceError(f"Device {wanted} cannot be used: torch finds {found}", CURE)


@contextmanager
def kept_torch(device: str = "cpu") -> Iterator[None]:
    """Puts the number of threads and the random numbers of torch back as they were: the process is the caller's."""
    threads = torch.get_num_threads()
    devices = [torch.device(device).index or 0] if device.startswith("cuda") else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        torch.set_num_threads(threads)
