"""`utils/`, the folder that the models share: it lies in the model's folder or beside it."""
import importlib.util
import sys
from pathlib import Path

MODEL_DIR = Path(__file__).resolve().parents[2]


def use_own_utils(model_dir: Path = MODEL_DIR) -> None:
    """Make `import utils` give the model's own folder, whatever other module of this name is on the path or imported.

    The folder that holds `utils/` does not go on the path: whatever else lies there would shadow installed packages.
    """
    folders = [folder for folder in (model_dir / "utils", model_dir.parent / "utils") if (folder / "__init__.py").is_file()
               and any((folder / tool).is_dir() for tool in ("mindrecord", "launch"))]
    if not folders or list(getattr(sys.modules.get("utils"), "__path__", ())) == [str(folders[0])]:
        return
    spec = importlib.util.spec_from_file_location("utils", folders[0] / "__init__.py", submodule_search_locations=[str(folders[0])])
    if spec is None or spec.loader is None:
        return
    for name in [name for name in sys.modules if name.partition(".")[0] == "utils"]:
        del sys.modules[name]
    sys.modules["utils"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["utils"])
