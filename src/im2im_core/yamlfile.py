"""YAML from anywhere, read without surprises: no tags, no alias bombs, no duplicate keys, bounded size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from im2im_core.errors import ConfigError, TrustError

if TYPE_CHECKING:
    from collections.abc import Hashable
    from pathlib import Path

MAX_BYTES = 4_000_000
MAX_ALIASES = 100


class _StrictLoader(yaml.SafeLoader):
    """Safe loader that refuses duplicate keys and counts aliases."""

    aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            self.aliases += 1
            if self.aliases > MAX_ALIASES:
                raise TrustError(f"YAML uses more than {MAX_ALIASES} aliases", "Write it without anchors")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool, type(None))):
                raise ConfigError(f"A key is {key!r} (line {key_node.start_mark.line + 1})", "Keys are names")
            if key in seen:
                raise ConfigError(f"Key {key!r} stands twice (line {key_node.start_mark.line + 1})", "Remove one")
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, name: str = "YAML") -> Any:
    """Plain content of YAML text.

    Raises
    ------
    TrustError
        The text asks for Python objects, is larger than 4 MB or uses more than 100 aliases.
    ConfigError
        The text is not YAML or a key stands twice.
    """
    if len(text) > MAX_BYTES:
        raise TrustError(f"{name} has {len(text)} characters", f"A recipe has less than {MAX_BYTES}")
    try:
        loader = _StrictLoader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.constructor.ConstructorError as error:
        raise TrustError(f"{name}: {error.problem}", "Python tags are never loaded; use plain YAML") from error
    except RecursionError as error:
        raise TrustError(f"{name} is nested too deeply", "A recipe has less than a dozen levels") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date or number
        raise ConfigError(f"{name} is not valid YAML: {error}") from error


def read_yaml(path: Path) -> Any:
    """Plain content of a YAML file; size is checked before it is read."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise TrustError(f"{path} has {size} bytes", f"A recipe has less than {MAX_BYTES}")
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text") from error
