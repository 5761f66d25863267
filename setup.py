"""The packages of the wheel: each model, with a copy of the tools of utils/ that its commands need.

The copies keep the name `utils` out of site-packages, and an installed model finds its tools just as a model directory does.
Everything else is in pyproject.toml.
"""
from setuptools import find_packages, setup

MODELS = ("faster_rcnn", "mask_rcnn", "refinedet")
TOOLS = ("mindrecord", "launch", "hccl_tools", "report")
folders = {f"{model}.utils": "utils" for model in MODELS}
tools = ["utils", *(f"utils.{name}" for name in find_packages("utils") if name.partition(".")[0] in TOOLS)]
setup(
    packages=[f"{model}.{name}".rstrip(".") for model in MODELS for name in ("", *find_packages(model), *tools)],
    package_dir=folders,
    package_data={"": ["*.yaml"], **{f"{model}.utils.report": ["templates/*"] for model in MODELS}},
    include_package_data=False,
)
