# Same as faster_rcnn/src/model_utils/own_utils.py
"""Find `utils/`, the folder that the models share, in the model's folder or beside it.

In a command, which runs in the model's folder, `import utils` imports this folder. In another program, which imports the model as a
package, `utils` may be a module of that program; the folder then gets the name MODEL.utils, as in the wheel, unless `import utils`
imports it anyway.
"""
import functools
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

MODEL_DIR = Path(__file__).resolve().parents[2]
# Command that converts weights: the installed package's, or a module in the model's folder.
INSTALLED = not {"site-packages", "dist-packages"}.isdisjoint(MODEL_DIR.parts)
CONVERT = f"{MODEL_DIR.name.replace('_', '-')} convert" if INSTALLED else "python -m src.convert_checkpoint"
PACKAGE = (__package__ or "").partition("src.")[0].rstrip(".")      # "" in a command, whose modules are src.*


def use_own_utils(model_dir: Path = MODEL_DIR) -> None:
    """Make `import utils` import the model's folder, even if another module of this name is on the path or imported.

    The folder that contains `utils/` is not put on the path, since its other content would shadow installed packages.
    """
    folder = find_folder(model_dir)
    if folder is None or list(getattr(sys.modules.get("utils"), "__path__", ())) == [str(folder)]:
        return
    for name in [name for name in sys.modules if name.partition(".")[0] == "utils"]:
        del sys.modules[name]
    _load(folder, "utils")


@functools.cache
def own_utils(name: str) -> ModuleType:
    """Return the module utils.NAME of the model's folder. Raises ModuleNotFoundError if the folder is missing."""
    base = "utils"
    if not PACKAGE:
        use_own_utils()
    elif folder := find_folder():
        base = "utils" if _is_utils(folder) else f"{PACKAGE}.utils"
        if base != "utils" and base not in sys.modules:
            _load(folder, base)
    return importlib.import_module(f"{base}.{name}")


def find_folder(model_dir: Path = MODEL_DIR) -> Path | None:
    """Return the folder `utils/`, or None if it is missing."""
    return next((folder for folder in (model_dir / "utils", model_dir.parent / "utils") if (folder / "__init__.py").is_file()
                 and any((folder / tool).is_dir() for tool in ("mindrecord", "launch"))), None)


def _is_utils(folder: Path) -> bool:
    """Return whether `import utils` would import this folder, without importing anything."""
    try:
        spec = importlib.util.find_spec("utils")
    except ValueError:          # a module without a spec
        return False
    return spec is not None and [str(Path(item).resolve()) for item in spec.submodule_search_locations or ()] == [str(folder)]


def _load(folder: Path, name: str) -> None:
    """Import the folder as the package `name`."""
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
    if spec is None or spec.loader is None:
        return
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
