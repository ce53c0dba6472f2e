"""CarveKit's cut-outs: a segmentation network, a trimap around its edges, and FBA matting for soft alpha.

Source: CarveKit 4.1.2 (Apache-2.0), https://github.com/OPHoperHPO/image-background-remove-tool; TRACER (Lee et al.,
AAAI 2022), U²-Net (Qin et al., 2020), BASNet (Qin et al., CVPR 2019), DeepLabV3 (Chen et al., 2017), FBA matting (Forte
and Pitié, 2020). The defaults are those with which "Are These the Same Apple?" (arXiv 2311.00750) cuts out its objects.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..backbones.device import resolve_device
from ..backbones.folder import weights_digest
from ..errors import ConfigError, ModelError
from .carvekit_weights import find_weights, load_weights, undisturbed

Segmenter = Literal["tracer_b7", "u2net", "basnet", "deeplab"]

# CarveKit refuses pictures of 32 pixels or less.
_MIN_SIDE = 33

_MATTING_FILE = "fba_matting.pth"


@dataclass(frozen=True)
class _Network:
    """A segmentation network: its weight file and the side in pixels of the input it was made for."""

    file: str
    mask_size: int


_NETWORKS: dict[Segmenter, _Network] = {
    "tracer_b7": _Network("tracer_b7.pth", 640),
    "u2net": _Network("u2net.pth", 320),
    "basnet": _Network("basnet.pth", 320),
    "deeplab": _Network("deeplab.pth", 1024),
}


@dataclass(frozen=True)
class CarveKitConfig:
    """Settings of :class:`CarveKit`; the defaults are the paper's.

    Attributes:
        segmenter: the segmentation network.
        seg_mask_size: side in pixels of its square input; None takes what the network was made for.
        matting_mask_size: the matting network sees pictures shrunk to fit a square of this many pixels.
        batch_size_seg: pictures per forward pass of the segmentation network.
        batch_size_matting: pictures per forward pass of the matting network. With more than 1, CarveKit squashes every
            picture to the full square instead of shrinking it in proportion: other masks, and slower for small ones.
        trimap_prob_threshold: segmentation values (of 255) above this are object for certain.
        trimap_dilation: pixels of the original picture around the certain object that matting decides.
        trimap_erosion_iters: pixels at the rim of the certain object that matting decides.
        fp16: half precision, on CUDA only; CarveKit's U²-Net and BASNet stay in single precision.
    """

    segmenter: Segmenter = "tracer_b7"
    seg_mask_size: int | None = None
    matting_mask_size: int = 2048
    batch_size_seg: int = 5
    batch_size_matting: int = 1
    trimap_prob_threshold: int = 231
    trimap_dilation: int = 30
    trimap_erosion_iters: int = 5
    fp16: bool = False

    def __post_init__(self) -> None:
        if self.segmenter not in _NETWORKS:
            raise ConfigError(f"segmenter={self.segmenter!r} is unknown; use one of {', '.join(_NETWORKS)}")
        for option in ("seg_mask_size", "matting_mask_size", "batch_size_seg", "batch_size_matting"):
            if (value := getattr(self, option)) is not None and value < 1:
                raise ConfigError(f"{option}={value} must be at least 1")
        for option in ("trimap_dilation", "trimap_erosion_iters"):
            if getattr(self, option) < 0:
                raise ConfigError(f"{option}={getattr(self, option)} must not be negative")
        if not 0 <= self.trimap_prob_threshold <= 254:
            raise ConfigError(f"trimap_prob_threshold={self.trimap_prob_threshold} must be 0 to 254")


class CarveKit:
    """A :class:`~.base.PixelForeground` by CarveKit's networks.

    Args:
        config: settings.
        device: ``"auto"`` (CUDA, else CPU), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        model_dir: folder with the weight files; None looks in ``$SELFSAME_MODELS_DIR/carvekit`` and CarveKit's cache,
            and then downloads.

    Raises:
        ConfigError: an option cannot work.
        ModelError: CarveKit is not installed, or weights are missing or broken; the message says what to do.
    """

    in_worker = False

    # The radii of the trimap are pixels of the original picture.
    full_scale = True

    def __init__(
        self,
        config: CarveKitConfig | None = None,
        *,
        device: str = "auto",
        model_dir: str | os.PathLike | None = None,
    ) -> None:
        self.config = config = config or CarveKitConfig()
        self.name = "carvekit" if config.segmenter == "tracer_b7" else f"carvekit-{config.segmenter}"
        self.device = _resolve_device(device, config)
        with undisturbed():
            version = _check_installed()
            files = [find_weights(file, model_dir) for file in (_NETWORKS[config.segmenter].file, _MATTING_FILE)]
            with self._on_device():
                self._segment = _build_segmenter(config, self.device.type, files[0])
                self._matting = _build_matting(config, self.device.type, files[1])
            self._trimap = _build_trimap(config)
        record = [version, asdict(config), *map(weights_digest, files)]
        self.weights_hash = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

    def masks(self, images: list[np.ndarray]) -> list[np.ndarray]:
        """Soft alpha ``(H, W)`` float32 in [0, 1], one per ``(H, W, 3)`` uint8 image.

        As in CarveKit, alpha below 0.3 is 0. The trimap's radii are pixels of the picture as it is given: only at full
        scale are the masks those that CarveKit itself would make.
        """
        pictures = [_enlarged(Image.fromarray(image)) for image in images]
        if not pictures:
            return []
        with self._on_device():
            maps = self._segment(pictures)
            trimaps = [self._trimap(picture, segmented) for picture, segmented in zip(pictures, maps, strict=True)]
            alphas = self._matting(pictures, trimaps)
        return [_as_mask(alpha, image.shape[:2]) for alpha, image in zip(alphas, images, strict=True)]

    def _on_device(self) -> contextlib.AbstractContextManager:
        """CarveKit knows devices by their type only; which GPU is meant must be said around its calls."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else contextlib.nullcontext()


def _resolve_device(device: str, config: CarveKitConfig) -> torch.device:
    # Not Apple's GPUs by themselves: they lack pooling operations that the matting network needs.
    resolved = resolve_device("cpu" if device == "auto" and not torch.cuda.is_available() else device)
    if config.fp16 and resolved.type != "cuda":
        raise ConfigError(f"fp16=True needs a CUDA device, this is {resolved.type!r}; leave it off")
    return resolved


def _check_installed() -> str:
    """CarveKit's version.

    Raises:
        ModelError: it cannot be imported.
    """
    try:
        import carvekit
        import carvekit.ml.files  # makes CarveKit's cache folder
    except ImportError as error:
        raise ModelError(
            f"foreground 'carvekit' needs the package CarveKit ({error}); `pip install --no-deps carvekit` (its"
            " dependencies would replace FiftyOne's OpenCV), or use foreground='one_pass' or 'grabcut'"
        ) from error
    except OSError as error:
        raise ModelError(
            f"CarveKit cannot make its cache folder ~/.cache/carvekit ({error}); set HOME to a folder that can be"
            " written, or use foreground='one_pass' or 'grabcut'"
        ) from error
    return str(carvekit.version)


def _build_segmenter(config: CarveKitConfig, device: str, path: Path) -> Callable[[Sequence[Image.Image]], Any]:
    """The segmentation network with its weights, as a function from RGB pictures to grey maps of the same sizes."""
    options = {
        "device": device,
        "batch_size": config.batch_size_seg,
        "input_image_size": config.seg_mask_size or _NETWORKS[config.segmenter].mask_size,
        "load_pretrained": False,
        "fp16": config.fp16,
    }
    if config.segmenter == "tracer_b7":
        from carvekit.ml.wrap.tracer_b7 import TracerUniversalB7

        # Without a path it would download even though nothing is to be loaded.
        tracer = TracerUniversalB7(model_path=path, **options)
        # The published file also holds an edge detector, which CarveKit's class lacks.
        return _filled(tracer, tracer, path, lenient=True)
    if config.segmenter == "u2net":
        from carvekit.ml.wrap.u2net import U2NET

        network = U2NET(**options)
    elif config.segmenter == "basnet":
        from carvekit.ml.wrap.basnet import BASNET

        network = BASNET(**options)
    else:
        from carvekit.ml.wrap.deeplab_v3 import DeepLabV3

        deeplab = DeepLabV3(**options)
        return _filled(deeplab, deeplab.network, path)
    return _filled(network, network, path)


def _build_matting(
    config: CarveKitConfig, device: str, path: Path
) -> Callable[[Sequence[Image.Image], Sequence[Image.Image]], Any]:
    """The matting network with its weights, as a function from pictures and trimaps to alpha maps."""
    from carvekit.ml.wrap.fba_matting import FBAMatting

    network = FBAMatting(
        device=device,
        input_tensor_size=config.matting_mask_size,
        batch_size=config.batch_size_matting,
        load_pretrained=False,
        fp16=config.fp16,
    )
    return _filled(network, network, path)


def _build_trimap(config: CarveKitConfig) -> Callable[[Image.Image, Image.Image], Image.Image]:
    """A function from a picture and its segmentation to a map of certain (255), unknown (127) and no object (0)."""
    from carvekit.trimap.generator import TrimapGenerator

    return TrimapGenerator(
        prob_threshold=config.trimap_prob_threshold,
        kernel_size=config.trimap_dilation,
        erosion_iters=config.trimap_erosion_iters,
    )


def _filled(wrapper: Any, network: nn.Module, path: Path, *, lenient: bool = False) -> Any:
    load_weights(network, path, lenient=lenient)
    network.eval()
    return wrapper


def _enlarged(picture: Image.Image) -> Image.Image:
    """The picture with neither side below what CarveKit accepts; the other side stays as it is."""
    size = max(picture.width, _MIN_SIDE), max(picture.height, _MIN_SIDE)
    return picture if size == picture.size else picture.resize(size, Image.Resampling.BICUBIC)


def _as_mask(alpha: Image.Image, hw: tuple[int, ...]) -> np.ndarray:
    size = hw[1], hw[0]
    fitted = alpha if alpha.size == size else alpha.resize(size, Image.Resampling.BOX)
    return np.asarray(fitted, np.float32) / 255.0
