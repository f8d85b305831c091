"""What a person should read of an exception: one sentence, a cure and an exit code, the same wherever a job ends."""

from __future__ import annotations

import errno
import traceback

from im2im_core.errors import ConfigError, DataError, Im2ImError, ResourceError, Stopped, TrustError
from im2im_core.events import Failed

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")
_ERRORS = {cls.exit_code: cls for cls in (ConfigError, DataError, ResourceError, TrustError, Stopped)}


def explain(error: BaseException) -> Failed:
    """What a person should read of an exception, with its exit code."""
    details = "".join(traceback.format_exception(error))
    if isinstance(error, Im2ImError):
        return Failed(error.message, error.cure, error.exit_code, details)
    text = str(error).lower()
    if isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY):
        return Failed("The memory does not suffice", "Choose a smaller patch, batch, tile or network", 4, details)
    if isinstance(error, OSError) and error.errno in _FULL:
        place = f" for {error.filename}" if error.filename else ""
        return Failed(f"The disk is full{place}", "Make room and resume", 4, details)
    return Failed(f"{type(error).__name__}: {error}", "This is an error of the program; see log.txt", 1, details)


def error_of(failed: Failed) -> Im2ImError:
    """Error of the kind that the exit code of `failed` stands for, to be raised elsewhere."""
    return _ERRORS.get(failed.exit_code, Im2ImError)(failed.message, failed.cure)
