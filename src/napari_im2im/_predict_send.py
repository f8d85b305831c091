"""What travels to the process that predicts: a path, or the pixels that are needed and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from im2im_core.axes import from_tczyx
from im2im_core.image import select_channels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from im2im_core.axes import Region
    from im2im_core.image import Image
    from im2im_core.models import LocalModel
    from im2im_core.predict_options import PredictOptions
    from napari_im2im._layers import Snapshot


def sent(source: Snapshot, region: Region | None, model: LocalModel, options: PredictOptions) -> dict[str, Any]:
    """Arguments of a prediction that say what is predicted: image, region and options.

    Files that are read lazily go by path. Of pixels only the chosen channels go, and of a region what
    its prediction reads, with the normalisation of the whole image. Reads pixels, so it is not for the
    main thread.
    """
    told = {"region": [[s.start, s.stop] for s in region] if region else None, "options": options.dump()}
    if source.path is not None:
        return {**source.arguments(), **told}
    # With all the settings of recipes: not for the opening of a panel.
    from im2im_core.excerpt import take_excerpt
    from im2im_core.inference import Inference

    image = source.image()
    told["options"] = options.replace(channels=None).dump()
    if region is not None and isinstance(model.inference, Inference):
        found = take_excerpt(image, model.inference, region, options)
        if found is not None:
            pixels, excerpt = found
            return {
                **_facts(excerpt, options),
                **told,
                "image": pixels,
                "axes": excerpt.info.axes,
                "excerpt": excerpt.told(),
            }
    chosen = select_channels(image, options.channels)
    axes = chosen.info.axes
    return {**_facts(chosen, options), **told, "image": from_tczyx(chosen.read(), axes), "axes": axes}


def sent_together(sources: Mapping[str, Snapshot], region: Region | None, options: PredictOptions) -> dict[str, Any]:
    """Arguments of a prediction for images that go in together, by the names of their inputs.

    Reads pixels, so it is not for the main thread.
    """
    return {
        "images": {name: source.arguments() for name, source in sources.items()},
        "region": [[s.start, s.stop] for s in region] if region else None,
        "options": options.dump(),
    }


def _facts(image: Image, options: PredictOptions) -> dict[str, Any]:
    """What a viewer knows of an image besides its pixels."""
    info = image.info
    return {
        "name": info.name,
        "voxel_size": list(info.voxel_size),
        # Channels that the user put into an order must not be put into another one by their names.
        "channels": list(info.channels) if options.channels is None else [],
        "time_step": info.time_step,
    }
