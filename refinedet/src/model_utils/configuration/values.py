# Same as faster_rcnn/src/model_utils/configuration/values.py
"""Configuration values: frozen, with access by attribute."""
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from .schema import nearest


class Config(Mapping):
    """Frozen configuration: `config.img_width`, `config["img_width"]`, `config.get("img_width", 0)`, `config.to_dict()`."""

    def __init__(self, values: Mapping[str, Any]):
        object.__setattr__(self, "_values", {name: _freeze(value) for name, value in values.items()})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copy and pickle look up methods before `_values` exists
            raise AttributeError(name)
        if name not in self._values:
            raise AttributeError(f"no config key {name!r}{nearest(name, self._values)}")
        return self._values[name]

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"the configuration is frozen: {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"the configuration is frozen: {name} cannot be deleted")

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Config({self.to_dict()})"

    def __reduce__(self) -> tuple[type["Config"], tuple[dict[str, Any]]]:
        return Config, (self.to_dict(),)

    def to_dict(self) -> dict[str, Any]:
        """Return the values as plain dicts and lists, which may be changed."""
        return {name: _thaw(value) for name, value in self._values.items()}


def _freeze(value: Any) -> Any:
    if isinstance(value, Mapping):
        return Config(value)
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(item) for item in value)
    return value


def _thaw(value: Any) -> Any:
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_thaw(item) for item in value]
    return value
