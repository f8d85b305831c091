"""Configurations like those of the paper of mmv_im2im (Sonneck et al. 2024), rebuilt from its description of them.

The files themselves are not read: networks, losses, patches, transforms and devices are the ones it names.
"""

from __future__ import annotations

from typing import Any

from conversion_world import load, monai, named

Content = dict[str, Any]
BOTH = ["IM", "GT"]
AICS = "aicsmlsegment.NetworkArchitecture.unet_xy_zoom_0pad_single"
TRANSFORMS = "mmv_im2im.preprocessing.transforms"
NETS = "mmv_im2im.models.nets"
CROP_2D = monai("RandSpatialCropSamplesd", keys=BOTH, random_size=False, num_samples=4, roi_size=[512, 512])
CROP_3D = monai("RandSpatialCropSamplesd", keys=BOTH, random_size=False, num_samples=4, roi_size=[32, 128, 128])
FLIP = monai("RandFlipd", prob=0.5, keys=BOTH)
PLANE = {"C": 0, "T": 0, "Z": 0}
VOLUME = {"C": 0, "T": 0}


def _percentiles(*keys: str, lower: float = 0.5, upper: float = 99.5) -> Content:
    return monai("ScaleIntensityRangePercentilesd", keys=list(keys), lower=lower, upper=upper, b_min=-1, b_max=1)


def _channels(*keys: str) -> Content:
    return monai("AddChanneld", keys=list(keys))


def _typed(*keys: str) -> Content:
    return monai("EnsureTyped", keys=list(keys))


def _config(
    preprocess: list[Content],
    model: Content,
    *,
    folder: str = "",
    batch: int = 4,
    data: Any = None,
    trainer: Any = None,
) -> Content:
    """A training with images in `folder` of the authors' disk; `data` and `trainer` change its sections."""
    usual = {"accelerator": "gpu", "devices": 1, "precision": 16, "max_epochs": 10000, "detect_anomaly": True}
    params = usual | (trainer or {}).get("params", {})
    loaders = {
        "train": {
            "dataloader_type": {"module_name": "monai.data", "func_name": "PersistentDataset"},
            "dataset_params": {"pickle_protocol": 5, "cache_dir": "/mnt/eternus/somebody/tmp"},
            "dataloader_params": {"batch_size": batch, "pin_memory": True, "num_workers": 4},
        },
        "val": {"dataloader_params": {"batch_size": 1, "pin_memory": True, "num_workers": 2}},
    }
    return {
        "mode": "train",
        "data": {
            "category": "pair",
            "data_path": f"/mnt/eternus/somebody/{folder}/train",
            "dataloader": {"train_val_ratio": 0.2} | loaders,
            "preprocess": preprocess,
            "augmentation": [FLIP],
            **(data or {}),
        },
        "model": {"optimizer": _adam(), "scheduler": _decay(), **model},
        "trainer": {"verbose": True, **(trainer or {}), "params": params},
    }


def _adam(lr: float = 0.001, **more: Any) -> Content:
    return named("torch.optim", "Adam", lr=lr, weight_decay=0.0005, **more)


def _decay(gamma: float = 0.98) -> Content:
    return named("torch.optim.lr_scheduler", "ExponentialLR", gamma=gamma)


def _fcn(net: Content, criterion: Content, **more: Any) -> Content:
    return {"framework": "FCN", "net": net, "criterion": criterion, **more}


def _mse() -> Content:
    return named("torch.nn", "MSELoss", reduction="mean")


def _stops(patience: int) -> list[Content]:
    lightning = "lightning.pytorch.callbacks"
    return [
        named(f"{lightning}.early_stopping", "EarlyStopping", monitor="val_loss", patience=patience, verbose=True),
        named(
            f"{lightning}.model_checkpoint",
            "ModelCheckpoint",
            monitor="val_loss",
            filename="{epoch}-{val_loss:.5f}",
            save_last=True,
        ),
    ]


# ---- one network that learns pairs ---------------------------------------------------


def glands_2d() -> Content:
    """Glands in stained sections (GlaS), with every change of patches that the paper names."""
    net = named(
        "monai.networks.nets",
        "AttentionUnet",
        spatial_dims=2,
        in_channels=3,
        out_channels=2,
        channels=[32, 64, 128, 256, 512, 1024],
        strides=[2, 2, 2, 2, 2],
    )
    criterion = named("monai.losses", "GeneralizedDiceFocalLoss", softmax=True, to_onehot_y=True)
    elastic = monai(
        "Rand2DElasticd",
        prob=0.3,
        spacing=[30, 30],
        magnitude_range=[1, 5],
        rotate_range=[0, 0.5],
        scale_range=[0.1, 0.25],
        translate_range=[10, 50],
        padding_mode="reflection",
        mode=["bilinear", "nearest"],
        keys=BOTH,
    )
    shift = monai("RandHistogramShiftd", prob=0.3, num_control_points=50, keys=["IM"])
    steps = [
        load(["IM"], "CYX", T=0, Z=0),
        load(["GT"], "YX", **PLANE),
        _channels("GT"),
        named(TRANSFORMS, "normalize_staining", keys=["IM"]),
        monai("NormalizeIntensityd", keys=["IM"], channel_wise=True),
        monai("CastToTyped", keys=["GT"], dtype="int"),
        monai("RandSpatialCropd", keys=BOTH, random_size=False, roi_size=[512, 512]),
        _typed(*BOTH),
    ]
    plateau = named("torch.optim.lr_scheduler", "ReduceLROnPlateau", mode="min", factor=0.2, patience=50)
    return _config(
        steps,
        _fcn(net, criterion, scheduler=plateau | {"monitor": "val_loss"}),
        folder="glas",
        batch=8,
        data={"augmentation": [FLIP, shift, elastic]},
        trainer={"params": {"max_epochs": 5000, "precision": 32}, "callbacks": _stops(500)},
    )


def fibrillarin_3d() -> Content:
    """Classes in volumes whose planes lie apart: the first levels keep the depth."""
    net = named(
        "monai.networks.nets",
        "DynUnet",
        spatial_dims=3,
        in_channels=1,
        out_channels=2,
        kernel_size=[[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
        strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]],
        upsample_kernel_size=[[1, 2, 2], [2, 2, 2], [2, 2, 2]],
        filters=[32, 64, 128, 256],
        dropout=0.1,
        res_block=True,
    )
    criterion = named("monai.losses", "GeneralizedDiceFocalLoss", softmax=True, to_onehot_y=True)
    steps = [
        load(BOTH, "ZYX", **VOLUME),
        _channels(*BOTH),
        _percentiles("IM", lower=0.1, upper=99.9),
        monai("CastToTyped", keys=["GT"], dtype="int"),
        CROP_3D,
        _typed(*BOTH),
    ]
    return _config(steps, _fcn(net, criterion), folder="fibrillarin")


def denoising_3d() -> Content:
    """Planaria and tribolium (CARE)."""
    net = named(
        "monai.networks.nets",
        "UNet",
        spatial_dims=3,
        in_channels=1,
        out_channels=1,
        channels=[64, 128, 256, 512],
        strides=[2, 2, 2],
        num_res_units=3,
    )
    steps = [load(BOTH, "ZYX", **VOLUME), _channels(*BOTH), _percentiles(*BOTH), _typed(*BOTH)]
    return _config(steps, _fcn(net, _mse()), folder="denoising_planaria", batch=16)


def labelfree_2d() -> Content:
    """fnet in a plane."""
    steps = [load(BOTH, "YX", **PLANE), _channels(*BOTH), _percentiles(*BOTH), CROP_2D, _typed(*BOTH)]
    return _config(steps, _fcn(named(f"{NETS}.fnet_nn_2d", "Net", depth=4, mult_chan=32), _mse()), folder="kyoto")


def labelfree_3d() -> Content:
    """fnet in a volume, normalised around its centre, on several devices at once."""
    net = named(f"{NETS}.fnet_nn_3d", "Net", depth=4, mult_chan=32, in_channels=1, out_channels=1)
    steps = [
        load(BOTH, "ZYX", **VOLUME),
        _channels(*BOTH),
        named(TRANSFORMS, "norm_around_center", keys=BOTH, min_z=32),
        CROP_3D,
        _typed(*BOTH),
    ]
    many = {"params": {"devices": 4, "strategy": "ddp_find_unused_parameters_true"}}
    data = {"data_path": {"train": "/mnt/eternus/a/train", "val": "/mnt/eternus/a/val"}}
    return _config(steps, _fcn(net, _mse()), data=data, trainer=many)


def modality_transfer_3d() -> Content:
    """Confocal to STED, with a network of another package."""
    net = named(AICS, "UNet3D", in_channel=1, n_classes=1, down_ratio=3)
    steps = [load(BOTH, "ZYX", **VOLUME), _channels(*BOTH), _percentiles(*BOTH, lower=0.01, upper=99.99)]
    crop = monai("RandSpatialCropSamplesd", keys=BOTH, random_size=False, num_samples=2, roi_size=[6, 512, 512])
    many = {"params": {"devices": [0, 1]}, "strategy": "ddp"}
    return _config([*steps, crop, _typed(*BOTH)], _fcn(net, _mse()), folder="modality_transfer", trainer=many)


# ---- instances -----------------------------------------------------------------------


def worms_2d() -> Content:
    """C. elegans (BBBC010)."""
    keys = ["IM", "GT", "CE", "CL"]
    net = named(f"{NETS}.BranchedERFNet_2d", "BranchedERFNet_2d", num_classes=[4, 1], input_channels=1)
    criterion = named(
        "mmv_im2im.utils.embedding_loss",
        "SpatialEmbLoss_2d",
        grid_y=1280,
        grid_x=1280,
        pixel_y=1,
        pixel_x=1,
        n_sigma=2,
        foreground_weight=10,
    )
    steps = [load(keys, "YX", **PLANE), _channels(*keys), _percentiles("IM"), _typed(*keys)]
    data = {
        "category": "embedseg",
        "cache_path": "/mnt/eternus/somebody/cache",
        "extra": {"center_method": "medoid"},
        "patch_size": [1280, 1280],
        "augmentation": [monai("RandFlipd", prob=0.5, keys=keys)],
    }
    return _config(steps, {"framework": "embedseg", "net": net, "criterion": criterion}, folder="bbbc010", data=data)


def nuclei_3d() -> Content:
    """Nuclei in volumes, taught on from other weights, on eight devices."""
    keys = ["IM", "GT", "CE", "CL", "CM"]
    net = named(AICS, "UNet3D", in_channel=1, n_classes=7, down_ratio=3)
    criterion = named(
        "mmv_im2im.utils.embedding_loss",
        "SpatialEmbLoss_3d",
        grid_z=32,
        grid_y=256,
        grid_x=256,
        pixel_z=1,
        pixel_y=1,
        pixel_x=1,
        n_sigma=3,
        foreground_weight=10,
        use_costmap=True,
    )
    model = {
        "framework": "embedseg",
        "net": net,
        "criterion": criterion,
        "model_extra": {"pre-train": "/mnt/eternus/somebody/last.ckpt"},
    }
    steps = [load(keys, "ZYX", **VOLUME), _channels(*keys), _percentiles("IM"), _typed(*keys)]
    data = {"category": "embedseg", "extra": {"center_method": "medoid"}, "patch_size": [32, 256, 256]}
    many = {"params": {"devices": 8, "strategy": "ddp_find_unused_parameters_true"}}
    return _config(steps, model, folder="nuclei", batch=1, data=data, trainer=many)


# ---- networks that learn against each other -------------------------------------------

RESNET = {
    "type": "predefined_resnet",
    "params": {"spatial_dims": 2, "in_channels": 1, "out_channels": 1, "n_down_blocks": 4, "nf": 64},
}
PREDEFINED_UNET = {"type": "predefined_unet", "params": {"spatial_dims": 2, "in_channels": 1, "out_channels": 1}}
FNET = named(f"{NETS}.fnet_nn_3d", "Net", depth=4, mult_chan=32, in_channels=1, out_channels=1)
ATTENTION = named(
    "monai.networks.nets", "AttentionUnet", spatial_dims=2, in_channels=1, out_channels=1, channels=[32, 64, 128]
)
ZOOM = named(AICS, "UNet3D", in_channel=1, n_classes=1, down_ratio=3)


def adversarial(framework: str, generator: Content, dimensions: int) -> Content:
    """pix2pix or cyclegan with this generator, on four devices."""
    discriminator = {
        "type": "predefined_multiscale" if framework == "pix2pix" else "predefined_basic",
        "params": {"spatial_dims": dimensions, "in_channels": 2, "n_layers": 3, "nf": 64, "norm_layer": "INSTANCE"},
    }
    terms = {"pix2pix": ("fm_loss", "reconstruction_loss"), "cyclegan": ("cycle_loss", "identity_loss")}[framework]
    both = {"generator": _adam(0.0002, betas=[0.5, 0.999]), "discriminator": _adam(0.0002, betas=[0.5, 0.999])}
    model = {
        "framework": framework,
        "net": {"generator": generator, "discriminator": discriminator},
        "criterion": {"gan_loss": _mse()} | {term: named("torch.nn", "L1Loss") for term in terms},
        "optimizer": both,
        "scheduler": {"generator": _decay(0.999), "discriminator": _decay(0.999)},
    }
    steps = [load(BOTH, "ZYX" if dimensions == 3 else "YX", **VOLUME), _channels(*BOTH), _percentiles(*BOTH)]
    data = {"category": "unpair"} if framework == "cyclegan" else {}
    return _config(steps, model, data=data, trainer={"params": {"devices": 4}})


# ---- predictions -----------------------------------------------------------------------


def prediction(framework: str, net: Content, **model_extra: Any) -> Content:
    """A file for prediction with a network of `framework`."""
    return {
        "mode": "inference",
        "data": {
            "inference_input": {"dir": "holdout", "data_type": "_IM.tiff", "reader_params": {"C": 0, "T": 0}},
            "inference_output": {"path": "pred", "suffix": "_pred"},
            "preprocess": [monai("ScaleIntensityRangePercentiles", lower=0.5, upper=99.5, b_min=-1, b_max=1)],
            "postprocess": [
                named("mmv_im2im.postprocessing.basic_collection", "extract_segmentation", channel=1, cutoff=0.5)
            ],
        },
        "model": {
            "framework": framework,
            "net": net,
            "checkpoint": "/mnt/eternus/somebody/last.ckpt",
            "model_extra": model_extra,
        },
    }


TRAININGS = {
    "semantic_seg_2d_train": glands_2d,
    "semantic_seg_3d_train": fibrillarin_3d,
    "denoising_3d_train": denoising_3d,
    "labelfree_2d_fnet_train": labelfree_2d,
    "labelfree_3d_fnet_train": labelfree_3d,
    "modality_transfer_3d_train": modality_transfer_3d,
    "instance_seg_2d_train": worms_2d,
    "instance_seg_3d_train_fluo_pretrain": nuclei_3d,
}
"""Names like those of the paper's files -> what makes their content; all of them have a counterpart."""
ADVERSARIAL: dict[str, Content] = {
    "labelfree_3d_pix2pix_train": adversarial("pix2pix", FNET, 3),
    "synthetic_2d_pix2pix_train": adversarial("pix2pix", ATTENTION, 2),
    "staining_2d_pix2pix_train": adversarial("pix2pix", PREDEFINED_UNET, 2),
    "unsupervised_seg_2d_train": adversarial("cyclegan", RESNET, 2),
    "synthetic_2d_unsupervised_train": adversarial("cyclegan", ATTENTION, 2),
    "unsupervised_seg_3d_train": adversarial("cyclegan", ZOOM, 3),
}
"""Files of networks that learn against each other."""
PREDICTIONS: dict[str, Content] = {
    "semantic_seg_2d_inference": prediction("FCN", ATTENTION),
    "labelfree_3d_inference": prediction("FCN", FNET, sliding_window_params={"roi_size": [32, 128, 128]}),
    "instance_seg_3d_inference": prediction("embedseg", ZOOM, clustering={"method": "default"}),
    "staining_2d_inference": prediction("pix2pix", {"generator": PREDEFINED_UNET}),
}
"""Files of predictions."""
