"""Time the C++ program of ascend310_infer against infer.py on the CPU, on real images; print one JSON line.

usage: MS_LITE_HOME=LITE python tests/benchmarks/cpp.py [--model faster_rcnn] [--config YAML] [--pictures 30] [--rounds 3]
       [--scratch FOLDER]

The network is the model's default config, or another config in its folder, with random weights that give up to 100 detections per
image. The images are those of coco_mini in $DATA_DIR, repeated. Both programs run on all images and on the first few. The
difference between the two times is the time for the other images, without startup and compilation. `python_s` and `cpp_s` are
medians over the rounds, in seconds per image. `ratio` is the median of python_s / cpp_s per round. `*_wall_s`: all images, startup
and compilation included. `preprocess_s`: read, decode and preprocess one image in one thread, nothing else running.
`val2017_mb`: size of the results, extrapolated to 5000 images. `rss_mb`: memory of the C++ program up to image 50, and its maximum.
"""
import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
FEW = 5
# Model -> (further flags of export.py, {exported file: the same file as MINDIR version 1}).
EXPORTS = {
    "faster_rcnn": ("--split=True", {"net_dense": "v1_dense", "net_heads": "v1_heads"}),
    "mask_rcnn": ("--split=True", {"net_dense": "v1_dense", "net_heads": "v1_heads", "net_masks": "v1_masks"}),
    "refinedet": ("--with_nms=False", {"net": "v1"}),
}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="faster_rcnn", choices=sorted(EXPORTS))
    parser.add_argument("--config", default="default_config.yaml", help="relative to the model's folder")
    parser.add_argument("--pictures", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", help="folder for networks and results; what is there is used again")
    return parser.parse_args()


def python(program, *flags) -> None:
    subprocess.run([sys.executable, str(program), *map(str, flags)], check=True, stdout=subprocess.DEVNULL)


def save_network(args, folder: Path) -> None:
    """Save config.yaml and net.ckpt."""
    source = f"{args.model}.src"
    import_module(f"{source}.model_utils.local_adapter").prepare_environment(2)
    config_module = import_module(f"{source}.model_utils.config")
    config = config_module.load_config(ROOT / args.model / args.config, {
        "device_target": "CPU", "test_score_thr": 0.0125 if args.model == "refinedet" else 0.0})
    import mindspore as ms
    import numpy as np

    ms.set_seed(1)
    if args.model == "refinedet":
        net = import_module("tests.narrow_refinedet").narrow_network(config)
    else:
        network_define = import_module(f"{source}.network_define")
        net = network_define.build_network(config)
        images = ms.Tensor(np.random.default_rng(0).standard_normal((8, 3, 256, 256), np.float32))
        network_define.set_first_weights(net, config, lambda epoch, start: iter([(images,)]))
        import_module("tests.narrow_network").spread_heads(net)
    ms.save_checkpoint(net, str(folder / "net.ckpt"))
    config_module.save_config(config, folder / "config.yaml")


def prepare(args, folder: Path) -> None:
    """Prepare what both programs need: the network, its MINDIR files, settings, the build, images."""
    from tests.cpp_program import build

    if not (folder / "settings.txt").exists():
        saving = multiprocessing.get_context("spawn").Process(target=save_network, args=(args, folder))   # frees its memory at exit
        saving.start()
        saving.join()
        if saving.exitcode:
            raise SystemExit(saving.exitcode)
        flag, files = EXPORTS[args.model]
        python(ROOT / args.model / "export.py", f"--config_path={folder / 'config.yaml'}", f"--ckpt_file={folder / 'net.ckpt'}",
               f"--file_name={folder / 'net'}", "--test_batch_size=1", flag)
        for exported, name in files.items():
            python(ROOT / "ascend310_infer" / "mindir_v1.py", folder / f"{exported}.mindir", folder / f"{name}.mindir")
        python(ROOT / args.model / "postprocess.py", f"--settings_path={folder / 'settings.txt'}",
               f"--config_path={folder / 'config.yaml'}")
    build(folder / "build", Path(os.environ["MS_LITE_HOME"]))
    data = Path(os.environ.get("DATA_DIR") or ROOT.parent / "shared" / "data") / "coco_mini" / "val2017"
    sources = sorted(data.glob("*.jpg"))
    for name, count in (("few", FEW), ("all", args.pictures)):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir()
        for i in range(count):
            shutil.copy(sources[i % len(sources)], folder / name / f"{i:06d}.jpg")


def run_python(args, folder: Path, images: str) -> float:
    start = time.perf_counter()
    python(ROOT / args.model / "infer.py", f"--config_path={folder / 'config.yaml'}", f"--checkpoint_path={folder / 'net.ckpt'}",
           f"--input={folder / images}", f"--output_path={folder / 'python'}", "--score_thr=0", "--draw=False",
           "--test_batch_size=1")
    return time.perf_counter() - start


def run_cpp(folder: Path, images: str) -> tuple:
    """Return the seconds, and {images done: resident MB}."""
    mindir = next(path for path in folder.glob("v1*.mindir") if path.stem in ("v1", "v1_dense"))
    results = folder / "results.jsonl"
    results.unlink(missing_ok=True)
    start, memory = time.perf_counter(), {}
    process = subprocess.Popen(
        [str(folder / "build" / "detect"), f"--mindir_path={mindir}", f"--settings_path={folder / 'settings.txt'}",
         f"--input_path={folder / images}", f"--output_path={results}", "--device_type=CPU"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        time.sleep(0.05)
        try:
            resident = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2 ** 20
            memory[results.read_bytes().count(b"\n")] = resident
        except OSError:
            continue
    if process.returncode:
        raise SystemExit(f"detect ended with status {process.returncode}")
    return time.perf_counter() - start, memory


def time_preprocessing(folder: Path, count: int) -> float:
    """Return the seconds per image, in one thread."""
    names = "".join(f"{path}\n" for path in sorted((folder / "all").iterdir()))
    start = time.perf_counter()
    subprocess.run([str(folder / "build" / "dump_input"), f"--settings_path={folder / 'settings.txt'}"], input=names, text=True,
                   stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - start) / count


def main() -> None:
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.scratch or temporary).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        prepare(args, folder)
        rounds, walls = [], []
        for _ in range(args.rounds):
            slow, slow_few = run_python(args, folder, "all"), run_python(args, folder, "few")
            fast_few, _ = run_cpp(folder, "few")
            fast, memory = run_cpp(folder, "all")
            walls.append((slow, fast))
            rounds.append(((slow - slow_few) / (args.pictures - FEW), (fast - fast_few) / (args.pictures - FEW)))
        python_s, cpp_s = (statistics.median(column) for column in zip(*rounds))
        early = [resident for done, resident in memory.items() if done <= 50]
        print(json.dumps(vars(args) | {
            "python_s": round(python_s, 4), "cpp_s": round(cpp_s, 4),
            "ratio": round(statistics.median(a / b for a, b in rounds), 3),
            "ratios": [round(a / b, 3) for a, b in rounds],
            "python_wall_s": round(statistics.median(a for a, _ in walls), 2),
            "cpp_wall_s": round(statistics.median(b for _, b in walls), 2),
            "preprocess_s": round(time_preprocessing(folder, args.pictures), 5),
            "detections": sum(len(json.loads(line)["scores"]) for line in (folder / "results.jsonl").read_text().splitlines()),
            "val2017_mb": round((folder / "results.jsonl").stat().st_size / args.pictures * 5000 / 1e6, 1),
            "rss_mb": {"to_50": max(early), "most": max(memory.values())}}))


if __name__ == "__main__":
    main()
