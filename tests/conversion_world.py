"""Small configurations of the shape that mmv_im2im reads, written for these tests."""

from __future__ import annotations

from typing import Any


def named(module: str, name: str, **params: Any) -> dict[str, Any]:
    """A class or function as the files name it."""
    return {"module_name": module, "func_name": name, "params": params}


def monai(name: str, **params: Any) -> dict[str, Any]:
    """A transform of MONAI."""
    return named("monai.transforms", name, **params)


def load(keys: list[str], order: str, **axes: Any) -> dict[str, Any]:
    """The step that reads images."""
    return monai("LoadImaged", keys=keys, dimension_order_out=order, **axes)


def training(**changes: Any) -> dict[str, Any]:
    """A label-free training in 2D; `changes` are dotted names with ``__`` for dots."""
    content: dict[str, Any] = {
        "mode": "train",
        "data": {
            "category": "pair",
            "data_path": "images",
            "dataloader": {
                "train_val_ratio": 0.25,
                "train": {"partial_loader": 0.5, "dataloader_params": {"batch_size": 3, "num_workers": 4}},
                "val": {"dataloader_params": {"batch_size": 1}},
            },
            "preprocess": [
                load(["IM", "GT"], "YX", C=0, T=0, Z=0),
                monai("AddChanneld", keys=["IM", "GT"]),
                monai("ScaleIntensityRangePercentilesd", keys=["IM"], lower=0.5, upper=99.5, b_min=-1, b_max=1),
                monai("NormalizeIntensityd", keys=["GT"], channel_wise=True),
                monai(
                    "RandSpatialCropSamplesd", keys=["IM", "GT"], random_size=False, num_samples=4, roi_size=[32, 48]
                ),
                monai("EnsureTyped", keys=["IM", "GT"]),
            ],
            "augmentation": [monai("RandFlipd", prob=0.5, keys=["IM", "GT"])],
        },
        "model": {
            "framework": "FCN",
            "net": named("monai.networks.nets", "BasicUNet", spatial_dims=2, in_channels=1, out_channels=1),
            "criterion": named("torch.nn", "MSELoss", reduction="mean"),
            "optimizer": named("torch.optim", "AdamW", lr=0.002, weight_decay=0.0005),
            "scheduler": named("torch.optim.lr_scheduler", "ExponentialLR", gamma=0.5),
        },
        "trainer": {"verbose": True, "params": {"accelerator": "gpu", "devices": 1, "precision": 16, "max_epochs": 6}},
    }
    for name, value in changes.items():
        _set(content, name.split("__"), value)
    return content


def _set(content: dict[str, Any], path: list[str], value: Any) -> None:
    inside = content
    for part in path[:-1]:
        inside = inside.setdefault(part, {})
    if value is None:
        inside.pop(path[-1], None)
    else:
        inside[path[-1]] = value


SEGMENTATION: dict[str, Any] = {
    "data__preprocess": [
        load(["IM"], "YX", C=1, T=0),
        monai("LoadImaged", keys=["GT"], dimension_order_out="YX", dtype="int"),
        monai("EnsureChannelFirstd", keys=["GT"], channel_dim="no_channel"),
        monai("NormalizeIntensityd", keys=["IM"]),
    ],
    "model__net": named(
        "monai.networks.nets",
        "AttentionUnet",
        in_channels=1,
        out_channels=3,
        spatial_dims=2,
        channels=[8, 16, 16],
        strides=[1, 2, 2],
        dropout=0.2,
        task="segmentation",
    ),
    "model__criterion": named(
        "mmv_im2im.utils.gdl_regularized",
        "RegularizedGeneralizedDiceFocalLoss",
        spatial_dims=2,
        n_classes=3,
        use_connectivity_regularization=True,
        connectivity_weight=0.5,
        connectivity_warmup_epochs=3,
        connectivity_kernel_size=5,
        use_fractal_regularization=True,
        use_hausdorff_regularization=False,
        hausdorff_weight=1,
    ),
}
"""Changes of `training` that make it a segmentation without patches of its own."""

EMBEDSEG: dict[str, Any] = {
    "data__category": "embedseg",
    "data__extra": {"center_method": "centroid"},
    "data__preprocess": [
        load(["IM", "GT", "CE", "CL"], "YX", C=0, T=0, Z=0),
        monai("ScaleIntensityRangePercentilesd", keys=["IM"], lower=0.5, upper=99.5, b_min=0, b_max=1),
    ],
    "model__framework": "embedseg",
    "model__net": named(
        "mmv_im2im.models.nets.BranchedERFNet_2d", "BranchedERFNet_2d", num_classes=[4, 1], input_channels=1
    ),
    "model__criterion": named(
        "mmv_im2im.utils.embedding_loss",
        "SpatialEmbLoss_2d",
        grid_y=64,
        grid_x=64,
        pixel_y=1,
        pixel_x=1,
        n_sigma=2,
        foreground_weight=5,
        use_costmap=True,
    ),
}
"""Changes of `training` that make it one of instances."""

DENOISING: dict[str, Any] = {
    "data__data_path": "/somewhere/denoising/train",
    "data__preprocess": [
        load(["IM", "GT"], "ZYX", C=0, T=0),
        monai("RandSpatialCropd", keys=["IM", "GT"], roi_size=[6, 20, 20]),
    ],
    "model__net": named(
        "monai.networks.nets",
        "UNet",
        spatial_dims=3,
        in_channels=1,
        out_channels=1,
        channels=[8, 8, 16],
        strides=[2, 2],
        num_res_units=1,
        norm="BATCH",
    ),
    "trainer__params__gradient_clip_val": 0.8,
}
"""Changes of `training` that make it a restoration in 3D."""
