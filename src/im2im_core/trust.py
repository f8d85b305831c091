"""Which classes a recipe or bundle may name: checked by name before anything is imported, by origin after it."""

from __future__ import annotations

import inspect
import os
import re
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from im2im_core.errors import ConfigError, TrustError, nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from pydantic import BaseModel

ALLOWED = (
    "im2im_core",
    "torch.nn",
    "torch.optim",
    "monai.networks",
    "monai.losses",
    "monai.metrics",
    "monai.optimizers",
    "monai.transforms",
)
"""Packages whose classes may always be named."""

REFUSED = (
    "monai.transforms.io",  # reads and writes files
    "monai.losses.perceptual",  # runs code from torch.hub
    "monai.networks.nets.transchex",  # downloads weights
    "monai.networks.nets.cell_sam_wrapper",  # downloads weights
    "monai.networks.trt_compiler",  # loads compiled engines
)
"""Parts of allowed packages that read files or fetch code, each with its reason."""

ENVIRONMENT = "IM2IM_TRUST"
"""Variable with further trusted modules, separated by commas; ``--trust`` sets it for a command and its children."""

_HASH = re.compile(r"[0-9a-f]{64}")
_FILE_WORDS = ("path", "file", "url", "reader", "dir", "func", "function", "download", "repo", "checkpoint")
_FILE_ENDINGS = (".py", ".pt", ".pth", ".ckpt", ".pkl", ".npy", ".npz", ".so", ".dll")


# ---- public API ----------------------------------------------------------------


def resolve_class(class_path: str, base: type | None = None, trusted: Collection[str] = ()) -> type:
    """Class named by `class_path`, imported only when its name is trusted.

    Parameters
    ----------
    class_path : str
        For example ``monai.networks.nets.SegResNet``.
    base : type, optional
        The class must be a subclass of it.
    trusted : collection of str
        Modules trusted for this call, besides those that always are or that the user consented to.

    Raises
    ------
    TrustError
        The name is outside the trusted packages, or what it leads to is not a class of them.
    ConfigError
        The module or class does not exist, or is not a `base`.
    """
    require_trust(class_path, trusted)
    module_name, _, name = class_path.rpartition(".")
    found = _attribute(_import(module_name, class_path), name, class_path)
    if not isinstance(found, type):
        raise TrustError(f"{class_path} is not a class", "Only classes may be named")
    if not _within(found.__module__, trusted):
        raise TrustError(
            f"{class_path} is really {found.__module__}.{found.__qualname__}, which is not trusted",
            "Name a class where it is defined",
        )
    if base is not None and not issubclass(found, base):
        raise ConfigError(f"{class_path} is not a {base.__module__}.{base.__qualname__}", "Name a class of that kind")
    return found


def require_trust(class_path: str, trusted: Collection[str] = ()) -> None:
    """Do nothing when `class_path` may be imported; looks at the name alone.

    Raises
    ------
    TrustError
        The name is not in a trusted package.
    """
    parts = class_path.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts) or any(p.startswith("__") for p in parts):
        raise TrustError(f"{class_path!r} is not the import path of a class", "Use package.module.Class")
    if not _within(class_path, trusted):
        raise TrustError(
            f"{class_path} is not in a trusted package",
            f"If you trust the installed package {parts[0]}, add --trust {parts[0]}",
        )


def require_trusted_recipe(settings: BaseModel, trusted: Collection[str] = ()) -> None:
    """Do nothing when every class that `settings` name may be imported; raises TrustError otherwise."""
    for class_path in class_paths(settings):
        require_trust(class_path, trusted)


def check_arguments(cls: type, init_args: Mapping[str, Any], supplied: Collection[str] = ()) -> None:
    """Do nothing when `cls` can be called with `init_args`.

    Parameters
    ----------
    supplied : collection of str
        Arguments that the program gives itself, for example ``in_channels``.

    Raises
    ------
    ConfigError
        An argument is unknown (the nearest valid name is in the message) or missing.
    TrustError
        An argument of a shipped class names a file, a URL, a reader or a function.
    """
    parameters = _parameters(cls)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    names = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for name in init_args:
        if name not in names and not open_ended:
            raise ConfigError(f"{cls.__name__} has no argument {name!r}", nearest(name, names))
    missing = [
        n for n in names if parameters[n].default is inspect.Parameter.empty and n not in {*init_args, *supplied}
    ]
    if missing:
        raise ConfigError(f"{cls.__name__} needs {', '.join(missing)}", "Give it in init_args")
    if _inside(cls.__module__, ALLOWED):
        _refuse_files(cls, init_args, parameters)


def class_paths(content: Any) -> Iterator[str]:
    """Every ``class_path`` that settings, or plain content of them, name at any depth."""
    if hasattr(content, "model_dump"):
        content = content.model_dump()
    if isinstance(content, dict):
        if isinstance(content.get("class_path"), str):
            yield content["class_path"]
        content = list(content.values())
    if isinstance(content, (list, tuple)):
        for item in content:
            yield from class_paths(item)


def consented_modules() -> tuple[str, ...]:
    """Modules, and hashes of code in model packages, that the user trusts: recorded, then named by the environment."""
    named = [m.strip() for m in os.environ.get(ENVIRONMENT, "").split(",") if m.strip()]
    return tuple(dict.fromkeys([*_recorded(), *named]))


def record_consent(module: str) -> None:
    """Trust `module` from now on, for this user."""
    from im2im_core.files import write_json

    _require_module_name(module)
    write_json(consent_file(), {"modules": sorted({*_recorded(), module})})


def trust_for_this_process(modules: Collection[str]) -> None:
    """Trust `modules` in this process and those it starts."""
    for module in modules:
        _require_module_name(module)
    os.environ[ENVIRONMENT] = ",".join(
        dict.fromkeys([*filter(None, os.environ.get(ENVIRONMENT, "").split(",")), *modules])
    )


# ---- names ---------------------------------------------------------------------


def _within(name: str, trusted: Collection[str]) -> bool:
    if _inside(name, (*trusted, *consented_modules())):
        return True
    return (_inside(name, ALLOWED) and not _inside(name, REFUSED)) or _inside(name, _plugin_packages())


def _inside(name: str, packages: Collection[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _plugin_packages() -> tuple[str, ...]:
    """Packages that hold what installed entry points of the group ``im2im`` name."""
    return tuple(point.module.rpartition(".")[0] or point.module for point in entry_points(group="im2im"))


def _require_module_name(module: str) -> None:
    """Accept the name of a module, or the hash of code inside a model package."""
    if _HASH.fullmatch(module):
        return
    if not all(part.isidentifier() for part in module.split(".")):
        raise ConfigError(f"{module!r} is not the name of a module", "For example --trust my_package")


def _recorded() -> tuple[str, ...]:
    from im2im_core.files import read_json

    path = consent_file()
    if not path.exists():
        return ()
    try:
        modules = read_json(path)["modules"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error})", "Mend or delete it; consent is then asked anew"
        ) from error
    return tuple(m for m in modules if isinstance(m, str))


def consent_file() -> Path:
    """File with what this user trusts."""
    from im2im_core.project import user_home

    return user_home() / "trust.json"


# ---- what a name leads to ------------------------------------------------------


def _import(module_name: str, class_path: str) -> Any:
    try:
        return import_module(module_name)
    except ModuleNotFoundError as error:
        # A dotted trick (package.module.os.system) ends here: a module is not a package.
        if error.name is not None and module_name.startswith(error.name):
            raise ConfigError(
                f"There is no module {error.name} (in {class_path})",
                "Check the spelling and that the package is installed",
            ) from error
        raise ConfigError(f"{module_name} cannot be imported: {error}", "Install what it needs") from error


def _attribute(module: Any, name: str, class_path: str) -> Any:
    if not hasattr(module, name):
        classes = [n for n, v in vars(module).items() if isinstance(v, type) and not n.startswith("_")]
        raise ConfigError(f"There is no class {class_path}", nearest(name, classes) if classes else "")
    return getattr(module, name)


def _parameters(cls: type) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(cls).parameters
    except ValueError as error:
        raise ConfigError(f"{cls.__name__} does not say which arguments it takes", "Name another class") from error


def _refuse_files(cls: type, init_args: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]) -> None:
    for name, value in init_args.items():
        if _names_file(name) and not _is_number(value):
            raise TrustError(
                f"{cls.__name__}: argument {name} names a file, address or function",
                "Such arguments are not taken from a recipe; leave it out",
            )
        if any(_is_location(text) for text in _texts(value)):
            raise TrustError(f"{cls.__name__}: {name} = {value!r} is a file or an address", "Leave it out")
    pretrained = parameters.get("pretrained")
    if pretrained is not None and init_args.get("pretrained", pretrained.default) not in (None, False):
        raise TrustError(f"{cls.__name__} would download weights", "Add pretrained: false to init_args")


def _names_file(name: str) -> bool:
    return any(word in _FILE_WORDS for word in name.lower().split("_"))


def _is_number(value: Any) -> bool:
    """Whether `value` can name nothing: rates, sizes and switches, alone or in lists (``dropout_path_rate: 0.1``)."""
    if isinstance(value, (list, tuple)):
        return all(_is_number(item) for item in value)
    return value is None or isinstance(value, (bool, int, float))


def _is_location(text: str) -> bool:
    return "://" in text or text.startswith(("/", "\\", "~", "..")) or text.lower().endswith(_FILE_ENDINGS)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
