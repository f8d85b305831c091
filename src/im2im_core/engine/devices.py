"""Devices by name: which there are, which is meant, how they compute, and torch as it was before a job used it."""

from __future__ import annotations

import ctypes
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from im2im_core.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT = {M_TRIM_THRESHOLD: 2**30, M_MMAP_THRESHOLD: 2**25}
"""Bytes that glibc keeps at the end of the heap, and from which an array has a map of its own that is given back."""
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


# ---- how they compute ----


LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Of kernels, by their number of axes."""


def computes_in_bf16(device: str) -> bool:
    """Whether a device has instructions for bf16; what computes it in software is slower than fp32."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported())
    return device == "cpu" and (_processor_has("avx512_bf16") or _processor_has("amx_tile"))


def lay_out(network: nn.Module, device: str) -> None:
    """Store kernels as the device computes with them: on a processor with AVX-512, channels last.

    A training step takes about a tenth less time.
    """
    if device != "cpu" or not _processor_has("avx512"):
        return
    for module in network.modules():
        if not isinstance(module, _ConvNd):
            continue
        for kernel in module.parameters(recurse=False):
            if kernel.ndim in LAYOUTS:
                kernel.data = kernel.data.contiguous(memory_format=LAYOUTS[kernel.ndim])


def _processor_has(feature: str) -> bool:
    asked = getattr(torch.cpu, f"_is_{feature}_supported", None)  # has no public name
    return bool(asked and asked())


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees: the next batch needs as much, and new pages must be zeroed.

    Cutting a batch of patches took a third of the time on a virtual machine. It changes the whole process, so only
    one that trains and ends should ask for it; without glibc nothing happens.
    """
    if sys.platform != "linux":
        return
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        for setting, value in KEPT.items():
            mallopt(setting, value)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Number format of the forward pass."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


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
