"""Features of Stable Diffusion 1.5, as a second opinion beside those of a vision transformer; needs ``diffusers``.

A picture, with a little noise, is shown to the denoising network, and hidden states of its decoder are taken. Sources:
Zhang et al., "A Tale of Two Features" (NeurIPS 2023) and "Telling Left from Right" (CVPR 2024). Their releases
condition the network on an implicit caption from a network trained for panoptic segmentation; here a prompt does, or
none. So features are of the same kind as published, but not equal to them.
"""

import hashlib
import importlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..backbones.device import PRECISION_NAMES, Precision, resolve_device, resolve_precision
from ..backbones.folder import read_json, weights_digest
from ..backbones.hub import is_offline
from ..backbones.pretrained import quiet_loading
from ..errors import ConfigError, ModelError
from ..geometry import image_to_canvas, plan_geometry
from ..paths import models_dir
from .diffusion_taps import crop_offsets, run_with_taps, stitched

DEFAULT_MODEL = "stable-diffusion-v1-5/stable-diffusion-v1-5"

_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
# Half precision is what the features are computed in where it matters, and half as much to download.
_DOWNLOADS = (
    "model_index.json",
    *(f"{part}/*.json" for part in _PARTS),
    "tokenizer/*.txt",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "vae/diffusion_pytorch_model.fp16.safetensors",
    "text_encoder/model.fp16.safetensors",
)


@dataclass(frozen=True)
class DiffusionConfig:
    """How features are taken.

    Attributes:
        timestep: how much noise is added, of 1000.
        prompt: what the network is told to see; empty for no condition.
        size: side of the square canvas in pixels.
        crop: side in pixels of the crops in which it is shown, which overlap evenly; at most ``size``.
        freeu: parity with the release of "Telling Left from Right", which runs the network with FreeU.
        seed: of the noise, which is the same for all crops of all pictures.

    Raises:
        ConfigError: a value cannot work.
    """

    timestep: int = 50
    prompt: str = ""
    size: int = 960
    crop: int = 512
    freeu: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.timestep < 1000:
            raise ConfigError(f"timestep={self.timestep} must lie between 0 and 999")
        if not 0 < self.crop <= self.size:
            raise ConfigError(f"crop={self.crop} must be positive and at most size={self.size}")


class DiffusionFeatures:
    """A :class:`.features.LayerSource` of three layers: at 960 pixels, of 15², 30² and 60² cells.

    Args:
        model: folder in the format of ``diffusers``, a name in ``$SELFSAME_MODELS_DIR``, or a Hugging Face id.
        config: None takes the defaults.
        device: as of :func:`..backbones.load_backbone`.
        precision: of the weights and all arithmetic; ``"auto"`` is float16 on CUDA, as published, and else float32.

    Raises:
        ConfigError: ``diffusers`` is not installed, sizes do not fit the network, or the device is not there.
        ModelError: the model cannot be found or read.
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        config: DiffusionConfig | None = None,
        *,
        device: str = "auto",
        precision: Precision = "auto",
    ) -> None:
        self.name = model
        self.config = config or DiffusionConfig()
        self.device = resolve_device(device)
        self._dtype = _number_format(precision, self.device)
        self.precision = PRECISION_NAMES[self._dtype]
        diffusers = require_diffusers()
        folder = find_diffusion_folder(model)
        options = {"torch_dtype": self._dtype, "low_cpu_mem_usage": False}
        self._unet = self._load(folder, "unet", diffusers.UNet2DConditionModel, **options)
        # Only the half that encodes is needed.
        self._vae = self._load(folder, "vae", diffusers.AutoencoderKL, **options)
        del self._vae.decoder
        self.count = len(self._unet.up_blocks) - 1
        self._unit = 2 ** (len(self._vae.config.block_out_channels) + len(self._unet.config.block_out_channels) - 2)
        for name, side in (("size", self.config.size), ("crop", self.config.crop)):
            if side % self._unit:
                raise ConfigError(f"{name}={side} is not a multiple of {self._unit}, the network's coarsest cell")
        self._condition = self._encode_prompt(folder)
        self._signal = _signal_share(folder, self.config.timestep)
        self.weights_hash = _digest(folder)

    def settings(self) -> dict[str, Any]:
        """Everything but the picture that the features depend on, JSON-able."""
        return {"name": self.name, "precision": self.precision, **asdict(self.config)}

    def layers(self, image: np.ndarray) -> list[torch.Tensor]:
        """Features of a picture letterboxed onto a square.

        Args:
            image: ``(H, W, 3)`` uint8.

        Returns:
            ``(h_k, w_k, C_k)`` float32 on the network's device, the coarsest first.

        Raises:
            ModelError: the network returned numbers that are not finite.
        """
        size, crop = self.config.size, self.config.crop
        canvas = image_to_canvas(image, plan_geometry((image.shape[0], image.shape[1]), size, self._unit, "letterbox"))
        offsets = crop_offsets(size, crop, self._unit)
        corners = [(top, left) for top in offsets for left in offsets]
        parts = [self._features_of(canvas[:, top : top + crop, left : left + crop]) for top, left in corners]
        found = stitched(parts, corners, crop, size)
        if not all(layer.isfinite().all() for layer in found):
            raise ModelError(f"{self.name}: features are not finite; try precision='fp32'")
        return found

    @torch.inference_mode()
    def _features_of(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Layers ``(C_k, h_k, w_k)`` of one crop, a batch of one: so that memory stays small."""
        shown = (pixels[None].to(self.device, self._dtype)) * 2 - 1
        latent = self._vae.encode(shown).latent_dist.mode() * self._vae.config.scaling_factor
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(self.config.seed))
        noisy = self._signal**0.5 * latent + (1 - self._signal) ** 0.5 * noise.to(latent)
        taps = run_with_taps(
            self._unet,
            lambda: self._unet(noisy, self.config.timestep, encoder_hidden_states=self._condition),
            freeu=self.config.freeu,
        )
        # Copies made outside of inference mode are ordinary tensors.
        return [tap[0] for tap in taps]

    def _load(self, folder: Path, part: str, kind: Any, **options: Any) -> Any:
        path = folder / part
        variant = "fp16" if ".fp16." in _weight_file(path).name else None
        options |= {"local_files_only": True, "use_safetensors": True, "variant": variant, "output_loading_info": True}
        try:
            with quiet_loading():
                loaded, report = kind.from_pretrained(path, **options)
        except MemoryError:
            raise
        # The readers of weight files raise whatever they please.
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"{path}: cannot be loaded ({reason}); download the model again") from error
        missing = sorted(report["missing_keys"])
        if missing:
            raise ModelError(f"{path}: the weights lack {', '.join(missing[:3])}; download the model again")
        return loaded.eval().requires_grad_(False).to(self.device)

    def _encode_prompt(self, folder: Path) -> torch.Tensor:
        """``(1, tokens, channels)``; the text encoder is not needed afterwards."""
        transformers = importlib.import_module("transformers")
        encoder = self._load(folder, "text_encoder", transformers.CLIPTextModel, dtype=self._dtype)
        try:
            tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
            length = encoder.config.max_position_embeddings
            tokens = tokenizer(
                self.config.prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
            )
        except Exception as error:
            raise ModelError(f"{folder / 'tokenizer'}: cannot be read ({error}); download the model again") from error
        with torch.inference_mode():
            return encoder(tokens.input_ids.to(self.device))[0].to(self._dtype)


def find_diffusion_folder(model: str) -> Path:
    """The folder of a diffusion model: the path itself, in ``$SELFSAME_MODELS_DIR``, or from the Hugging Face Hub.

    Raises:
        ModelError: it is nowhere, or cannot be downloaded.
    """
    kept = models_dir()
    places = [Path(model).expanduser()]
    if kept is not None:
        places += [kept / model, kept / model.replace("/", "--")]
    for place in places:
        if (place / "unet").is_dir():
            return place.absolute()
    advice = (
        "put a folder in the format of diffusers (unet, vae, text_encoder, tokenizer, scheduler) into"
        " $SELFSAME_MODELS_DIR, or give its path"
    )
    if model.count("/") != 1 or Path(model).is_absolute():
        raise ModelError(f"diffusion model {model!r} is not on this machine; {advice}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=list(_DOWNLOADS), local_files_only=is_offline()))
    # Proxies, full disks, broken connections: every HTTP library has its own errors, and the advice is the same.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"diffusion model {model!r} cannot be downloaded ({reason}); {advice}") from error


def local_diffusion_models() -> list[str]:
    """Names of the diffusion models in ``$SELFSAME_MODELS_DIR``, as :func:`find_diffusion_folder` takes them."""
    kept = models_dir()
    if kept is None:
        return []
    found = [*kept.glob("*/unet/config.json"), *kept.glob("*/*/unet/config.json")]
    return sorted(path.parents[1].relative_to(kept).as_posix() for path in found)


def require_diffusers() -> Any:
    """The package ``diffusers``, which comes with the extra ``diffusion``.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("diffusers")
    except ImportError as error:
        raise ConfigError(
            "features of Stable Diffusion need a package that is not installed; run"
            ' `pip install "fiftyone-selfsame[diffusion]"`, or leave diffusion empty'
        ) from error


def _number_format(precision: Precision, device: torch.device) -> torch.dtype:
    """As for encoders, but that bfloat16, whose steps are eight times as coarse, has to be asked for."""
    if precision == "auto" and device.type == "cuda":
        return torch.float16
    return resolve_precision(precision, device)


def _weight_file(folder: Path) -> Path:
    found = sorted(folder.glob("*.safetensors"), key=lambda path: (".fp16." in path.name, len(path.name), path.name))
    if not found:
        raise ModelError(f"{folder}: no *.safetensors in this folder; download the model again")
    return found[0]


def _signal_share(folder: Path, timestep: int) -> float:
    """How much of a noisy latent's variance is the picture's: the product of ``1 - beta`` up to a timestep.

    Raises:
        ModelError: the schedule is one that Stable Diffusion 1.5 does not have.
    """
    path = folder / "scheduler" / "scheduler_config.json"
    config = read_json(path)
    try:
        kind, count = config.get("beta_schedule", "linear"), int(config["num_train_timesteps"])
        power = {"scaled_linear": 0.5, "linear": 1.0}[kind]
        start, end = (float(config[key]) ** power for key in ("beta_start", "beta_end"))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: no schedule that can be used ({error!r}); use Stable Diffusion 1.5") from error
    betas = np.linspace(start, end, count) ** (1 / power)
    return float(np.cumprod(1 - betas)[timestep])


def _digest(folder: Path) -> str:
    """Hash of the weights and the configurations beside them."""
    parts = []
    for part in ("unet", "vae", "text_encoder"):
        config = {key: value for key, value in read_json(folder / part / "config.json").items() if key[0] != "_"}
        parts += [json.dumps(config, sort_keys=True), weights_digest(_weight_file(folder / part))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
