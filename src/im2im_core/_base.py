"""The one base class of all settings: frozen, strict, documented by the string under each field."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from im2im_core.errors import ConfigError, explain_validation


class Config(BaseModel):
    """Frozen settings that refuse unknown keys and re-validate on change.

    The string under a field is its only help text: command-line help, tooltip,
    YAML comment and reference page are generated from it.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
    )

    def replace(self, **changes: Any) -> Self:
        """Copy with `changes` applied and everything validated again."""
        return type(self).load({**self.model_dump(), **changes})

    def dump(self) -> dict[str, Any]:
        """Full content as plain JSON types; defaults included, so that a union keeps its tag."""
        return self.model_dump(mode="json")

    @classmethod
    def load(cls, content: Any) -> Self:
        """Settings from plain content.

        Raises
        ------
        ConfigError
            Names every offending key, the value received and what is allowed.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise ConfigError(explain_validation(error, cls)) from error

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """Settings from a YAML file."""
        from im2im_core.yamlfile import read_yaml

        return cls.load(read_yaml(Path(path)))

    def to_yaml(self) -> str:
        """Full content as YAML."""
        return yaml.safe_dump(self.dump(), sort_keys=False, allow_unicode=True)

    def to_file(self, path: str | os.PathLike[str]) -> None:
        """Write the full content as YAML, never leaving half a file under `path`."""
        from im2im_core.files import write_atomic

        write_atomic(Path(path), self.to_yaml().encode())
