"""The text towers of SigLIP and SigLIP 2: from words to vectors in the space of the image embeddings."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..errors import ConfigError
from .catalog import CATALOG, EMBEDDED, HUB_IDS, HYBRID, UNTRAINED
from .device import resolve_device
from .folder import open_model_folder, weights_digest
from .hub import complete_with_tokenizer, find_model_folder
from .loader import remember
from .pretrained import load_model
from .tokenizer import Tokenizer, open_tokenizer, vocabulary_file

# By `model_type` of config.json.
_TEXT_CLASSES = {"siglip": "SiglipTextModel", "siglip2": "Siglip2TextModel"}

# The names whose images and texts share a space.
TEXT_MODELS = tuple(name for name, info in CATALOG.items() if info.family in _TEXT_CLASSES)

# Texts per forward pass.
_BATCH = 64


class TextEncoder:
    """A frozen text tower of SigLIP or SigLIP 2.

    Attributes:
        name: what the user asked for, as stored in provenance.
        weights_hash: hash of the checkpoint, the same as that of the image encoder from the same folder: vectors of
            the two may be compared where their hashes are equal.
        tokenizer_hash: hash of the vocabulary file.
        dim: numbers D of a vector.
        device: where it runs, in float32.
    """

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, *, hashes: tuple[str, str], name: str) -> None:
        # transformers 4 nests the tower, version 5 does not.
        tower: Any = getattr(model, "text_model", model)
        self.name = name
        self.weights_hash, self.tokenizer_hash = hashes
        self.device = next(model.parameters()).device
        self._model: Any = model
        self._tokenizer = tokenizer
        self._length = int(tower.config.max_position_embeddings)
        self.dim = int(tower.head.out_features)

    def embed(self, texts: Sequence[str], *, template: str = "{}") -> np.ndarray:
        """Vectors of texts, for comparison by cosine with those of images or regions.

        Args:
            texts: B texts; longer ones than the model takes (64 pieces as a rule) are cut.
            template: what each text is put into at ``{}``. The bare text by default; for single nouns SigLIP's
                documentation uses ``"This is a photo of {}."``.

        Returns:
            ``(B, D)`` float32 unit rows.

        Raises:
            ConfigError: a text has no words, or the template no place for it.
        """
        if "{}" not in template:
            raise ConfigError(f"template={template!r} has no {{}} to put the text at")
        filled = [template.replace("{}", self._tokenizer.canonical(text)) for text in texts]
        numbers = [self._tokenizer.encode(text, self._length) for text in filled]
        vectors = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(numbers), _BATCH):
            pieces = torch.tensor(numbers[start : start + _BATCH], device=self.device)
            with torch.no_grad():
                # No attention mask: both generations were trained to attend to the padding.
                pooled = self._model(input_ids=pieces).pooler_output
            vectors.append(functional.normalize(pooled.float(), dim=-1).cpu().numpy())
        return np.concatenate(vectors)


def load_text_encoder(name: str | os.PathLike, *, device: str = "auto") -> TextEncoder:
    """Loads the text tower that belongs to an image encoder; a second call with the same arguments returns the same.

    Args:
        name: a SigLIP or SigLIP 2 name of the catalogue, a Hugging Face id, or the path of a local folder with both
            towers and the tokenizer (``tokenizer.json`` or ``spiece.model``).
        device: as for :func:`.load_backbone`.

    Raises:
        ConfigError: the name or device is unknown, or the model has no text tower.
        ModelError: the model or its tokenizer cannot be found, downloaded or read; the message says what to do.
    """
    name = os.fspath(name)
    if name in (EMBEDDED, HYBRID, UNTRAINED, *HUB_IDS) and name not in TEXT_MODELS:
        raise ConfigError(f"model={name!r} knows no texts; use one of {', '.join(TEXT_MODELS)}")
    folder = open_model_folder(find_model_folder(name, TEXT_MODELS))
    model_class = _TEXT_CLASSES.get(folder.config["model_type"])
    if model_class is None:
        raise ConfigError(
            f"{folder.path}: a {folder.config['model_type']!r} model has no text tower; use a SigLIP or SigLIP 2 model"
            f" with both towers, such as {TEXT_MODELS[0]!r}"
        )
    complete_with_tokenizer(name, folder.path)
    resolved = resolve_device(device)
    hashes = (folder.digest(), weights_digest(vocabulary_file(folder.path)))

    def load() -> TextEncoder:
        tower = replace(folder, family=replace(folder.family, model_class=model_class))
        model = load_model(tower).eval().requires_grad_(False).to(resolved)
        return TextEncoder(model, open_tokenizer(folder.path), hashes=hashes, name=name)

    return remember(("text", name, hashes, resolved), load)
