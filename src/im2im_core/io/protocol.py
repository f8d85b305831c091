"""What a reader and a writer of images must be able to do."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from im2im_core.axes import Region
from im2im_core.image import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray


@runtime_checkable
class Reader(Protocol):
    """Opens one family of formats; nothing heavy is imported before `open` or `scenes`."""

    name: str

    def supports(self, path: Path) -> bool:
        """Whether the name (for a folder: its marker files) says that this reader is meant."""
        ...

    def open(self, path: Path, *, scene: int | str = 0, axes: str | None = None) -> Image:
        """Lazy image of one scene."""
        ...

    def scenes(self, path: Path) -> tuple[str, ...]:
        """Names of all images in the file, in order, each once."""
        ...


@runtime_checkable
class RegionWriter(Protocol):
    """Writes an image part by part; nothing stands under the final name before `finish`.

    As a context manager it finishes when the block succeeds and aborts when it raises.
    """

    chunks: tuple[int, int, int, int, int]
    """Regions aligned to this ``(T, C, Z, Y, X)`` grid are written fastest and never share a chunk."""

    def write(self, region: Region, pixels: NDArray[Any]) -> None:
        """Store ``(T, C, Z, Y, X)`` `pixels` at `region`; may be called from several threads."""
        ...

    def finish(self) -> Path:
        """Final path, after all is safely on disk under it."""
        ...

    def abort(self) -> None:
        """Remove everything that was written."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class WriterBlock:
    """Context manager behaviour of every writer."""

    def finish(self) -> Path:
        """Final path, after all is safely on disk under it."""
        raise NotImplementedError

    def abort(self) -> None:
        """Remove everything that was written."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
            return
        try:
            self.finish()
        except BaseException:
            self.abort()
            raise
