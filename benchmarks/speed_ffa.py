"""``speed ffa``: whole jobs, from image files to fields in MongoDB, beside the bare encoder and the published pipeline.

Two questions. How much of the encoder's own speed does the whole job keep? The bare loop encodes the same pictures,
decoded and resized beforehand, in batches of the same size on the same device; both are repeated in turn, and the
median of each counts. And how much faster than the published pipeline (CarveKit with Tracer-B7 and FBA matting, then
ViT-B/14) is the default one, which finds the foreground in the encoder's tokens? Both run as whole jobs on the same
pictures.

Where pretrained weights are not at hand, folders of the real architectures with random weights stand in: the time of a
network does not depend on what it knows. Rows say so.
"""

import argparse
import contextlib
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

from ..brain.backbones import Backbone, load_backbone
from ..brain.backbones.hub import local_model_folder
from ..brain.errors import ConfigError
from ..brain.geometry import image_to_canvas, plan_geometry
from ..brain.images import decode_image
from ..brain.paths import models_dir
from ..fixtures.private_database import use_private_database
from .report import emit

# Real shapes of DINOv2; the rest of the configuration is the library's default.
_SHAPES = {
    "dinov2-small": {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6},
    "dinov2-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
}
_RANDOM = "random weights"
_PHOTO_HW = (1200, 1600)


def add_parser(subparsers: Any) -> None:
    """Adds ``ffa`` to the parser of `benchmarks.speed`."""
    parser = subparsers.add_parser("ffa", help="the whole FFA job against the bare encoder", description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of images; default: synthesised JPEGs of 1600×1200")
    parser.add_argument("--n", type=int, default=48, help="images (default: %(default)s)")
    parser.add_argument("--n-paper", type=int, default=2, help="images for the published pipeline; 0 leaves it out")
    parser.add_argument("--model", default="dinov2-small", help="name or folder of a backbone (default: %(default)s)")
    parser.add_argument("--size", type=int, default=336, help="side of the encoder's input (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--num-workers", type=int, default=2, help="decode threads (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--json", metavar="OUT", help="write the rows as JSON")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> None:
    """Measures both comparisons and prints one row per job."""
    if min(options.n, options.repeats, options.batch_size) < 1 or options.n_paper < 0:
        raise ConfigError("--n, --repeats and --batch-size must be at least 1, --n-paper at least 0")
    use_private_database()
    with tempfile.TemporaryDirectory(prefix="selfsame-bench-") as folder:
        bench = _Bench(options, Path(folder))
        rows = bench.against_encoder()
        rows += bench.against_publication() if options.n_paper else []
    names = ("n", "n_paper", "model", "size", "batch_size", "num_workers", "repeats", "device", "precision")
    emit(
        rows,
        data=options.images or "synthesised JPEGs, 1600×1200",
        settings={name: getattr(options, name) for name in names},
        json_path=options.json,
        title="FFA: whole jobs, from image files to fields in MongoDB",
    )


@dataclass
class _Bench:
    options: argparse.Namespace
    folder: Path

    def __post_init__(self) -> None:
        self.paths = _images(self.options.images, self.options.n, self.folder / "images")

    def against_encoder(self) -> list[dict[str, Any]]:
        """The bare encoder and the whole job, repeated in turn."""
        options = self.options
        model, label = self._model(options.model)
        backbone = load_backbone(model, device=options.device, precision=options.precision)
        canvases = _canvases(self.paths, options.size, backbone.patch_size)
        dataset = _dataset(self.paths)
        self._job(self._thumbnail(), model)
        _encode(backbone, canvases[: options.batch_size], options.batch_size)
        bare: list[_Measured] = []
        whole: list[_Measured] = []
        for _ in range(options.repeats):
            bare.append(_measure(lambda: _encode(backbone, canvases, options.batch_size), backbone.device))
            whole.append(_measure(lambda: self._job(dataset, model), backbone.device))
        encoder_rate = len(self.paths) / statistics.median(one.seconds for one in bare)
        rows = []
        for method, scope, runs in (("encoder", "bare loop, tensors in memory", bare), ("ffa", "whole job", whole)):
            rate = len(self.paths) / statistics.median(one.seconds for one in runs)
            rows.append(
                {
                    "method": method,
                    "group": label,
                    "scope": scope,
                    "images": len(self.paths),
                    "images_per_second": rate,
                    "share_of_encoder": rate / encoder_rate,
                    "peak_memory_mb": max(one.peak_mb for one in runs),
                    "added_memory_mb": max(one.added_mb for one in runs),
                }
            )
        return rows

    def against_publication(self) -> list[dict[str, Any]]:
        """The published pipeline and the default one on a few images, as whole jobs, models loaded beforehand."""
        base, base_label = self._model("dinov2-base")
        chosen, chosen_label = self._model(self.options.model)
        cutter = f"CarveKit Tracer-B7 and FBA{self._prepare_carvekit()}"
        paths = self.paths[: self.options.n_paper]
        jobs: list[tuple[str, str, str, dict[str, Any]]] = [
            ("ffa_paper", f"{cutter}; {base_label}", base, {"preset": "paper"}),
            ("ffa", f"one_pass; {base_label}", base, {}),
            ("ffa", f"one_pass; {chosen_label}", chosen, {}),
        ]
        rows: list[dict[str, Any]] = []
        for method, group, model, extra in jobs:
            dataset = _dataset(paths)
            self._job(self._thumbnail(), model, **extra)
            measured = _measure(lambda d=dataset, m=model, e=extra: self._job(d, m, **e), torch.device("cpu"))
            rate = len(paths) / measured.seconds
            published = rows[0]["images_per_second"] if rows else rate
            rows.append(
                {
                    "method": method,
                    "group": group,
                    "scope": "whole job",
                    "images": len(paths),
                    "images_per_second": rate,
                    "times_the_paper": rate / published,
                    "peak_memory_mb": measured.peak_mb,
                    "added_memory_mb": measured.added_mb,
                }
            )
        return rows

    def _job(self, samples: Any, model: str, **extra: Any) -> None:
        from ..fiftyone_plugin.compute import compute_ffa

        options = self.options
        compute_ffa(
            samples,
            model=model,
            size=options.size,
            batch_size=options.batch_size,
            num_workers=options.num_workers,
            device=options.device,
            precision=options.precision,
            overwrite=True,
            skip_failures=False,
            progress=False,
            **extra,
        )

    def _thumbnail(self) -> Any:
        """A dataset of one tiny picture: a job on it loads the models, which the rates leave out."""
        path = self.folder / "thumbnail.jpg"
        Image.new("RGB", (32, 32)).save(path)
        return _dataset([path])

    def _prepare_carvekit(self) -> str:
        """Makes weights for CarveKit where the user keeps none; returns what to add to its name in the table."""
        kept = models_dir()
        if kept is not None and (kept / "carvekit").is_dir():
            return ""
        from ..fixtures.carvekit_folders import make_carvekit_folder

        make_carvekit_folder(self.folder / "models" / "carvekit", "tracer_b7")
        # This process runs nothing else, and its backbones have been resolved to folders by now.
        os.environ["SELFSAME_MODELS_DIR"] = str(self.folder / "models")
        return f" ({_RANDOM})"

    def _model(self, name: str) -> tuple[str, str]:
        """What to load for a name and what to call it: pretrained weights, or the same architecture at random."""
        if name not in _SHAPES or local_model_folder(name):
            return name, name
        folder = self.folder / name
        if not folder.is_dir():
            from ..fixtures.model_folders import make_model_folder

            make_model_folder("dinov2", folder, patch_size=14, image_size=518, **_SHAPES[name])
        return str(folder), f"{name} architecture, {_RANDOM}"


@dataclass(frozen=True)
class _Measured:
    seconds: float
    peak_mb: float
    added_mb: float


def _measure(work: Callable[[], None], device: torch.device) -> _Measured:
    """Time of some work, the peak memory of this process meanwhile (on CUDA: of the device), and its growth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        started = time.perf_counter()
        work()
        torch.cuda.synchronize(device)
        seconds, peak = time.perf_counter() - started, torch.cuda.max_memory_allocated(device)
    else:
        with _peak_rss() as watch:
            before = watch.peak
            started = time.perf_counter()
            work()
            seconds = time.perf_counter() - started
        peak = watch.peak
    return _Measured(seconds, peak / 2**20, (peak - before) / 2**20)


class _Watch:
    """The largest resident size seen so far, in bytes."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.peak = 0
        self.look()

    def look(self) -> None:
        self.peak = max(self.peak, self._process.memory_info().rss)


@contextlib.contextmanager
def _peak_rss() -> Iterator[_Watch]:
    watch, stop = _Watch(), threading.Event()

    def follow() -> None:
        while not stop.wait(0.02):
            watch.look()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.look()
        stop.set()
        thread.join()


def _encode(backbone: Backbone, canvases: torch.Tensor, batch_size: int) -> None:
    for start in range(0, len(canvases), batch_size):
        tokens = backbone.tokens(canvases[start : start + batch_size])
    # The copy makes sure that the device has finished.
    tokens.patch[-1, 0, 0].cpu()


def _canvases(paths: list[Path], size: int, patch: int) -> torch.Tensor:
    images = [decode_image(path, min_side=2 * size) for path in paths]
    return torch.stack([image_to_canvas(image, plan_geometry(image.shape[:2], size, patch)) for image in images])


def _dataset(paths: list[Path]) -> Any:
    import fiftyone as fo

    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(filepath=str(path)) for path in paths], progress=False)
    return dataset


def _images(folder: Path | None, n: int, target: Path) -> list[Path]:
    """Images of the user's folder, or synthesised ones."""
    if folder is not None:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[:n]
        if not paths:
            raise ConfigError(f"--images {folder}: no JPEG or PNG files in it")
        return paths
    target.mkdir()
    paths = [target / f"{number:05d}.jpg" for number in range(n)]
    for number, path in enumerate(paths):
        _photograph(number).save(path, quality=90)
    return paths


def _photograph(seed: int) -> Image.Image:
    """A picture that costs a JPEG decoder what a photograph does: smooth shapes, texture, one object."""
    generator = np.random.default_rng(seed)
    height, width = _PHOTO_HW
    coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    picture = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    texture = generator.normal(0, 6, (height, width, 1))
    rows, columns = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    inside = (rows**2 + columns**2 < 0.3)[..., None]
    picture = np.where(inside, 255 - picture, picture) + texture
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
