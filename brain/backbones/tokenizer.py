"""From the words of a query to the numbers that SigLIP's and SigLIP 2's text towers were trained on."""

import importlib
import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, ModelError
from .folder import TOKENIZER_CONFIG_FILE, VOCABULARY_FILES, read_json

_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Tokenizer:
    """A vocabulary, and the rules of its model about what stands around a text.

    Attributes:
        pieces: numbers of the pieces of a canonical text, without any special ones.
        end: number of the piece that ends every text.
        padding: number of the piece that fills a text up.
        keeps_punctuation: SigLIP's texts lose their punctuation, those of SigLIP 2 do not.
    """

    pieces: Callable[[str], list[int]]
    end: int
    padding: int
    keeps_punctuation: bool

    def canonical(self, text: str) -> str:
        """The text in the form in which the model was trained: lower case, single spaces.

        Raises:
            ConfigError: nothing is left of it.
        """
        bare = text.lower() if self.keeps_punctuation else text.lower().translate(_PUNCTUATION)
        bare = re.sub(r"\s+", " ", bare).strip()
        if not bare:
            raise ConfigError(f"text={text!r} has no words; write what to look for, such as 'a red mug'")
        return bare

    def encode(self, text: str, length: int) -> list[int]:
        """Exactly ``length`` numbers: the pieces, cut if they are too many, the end, and padding on the right.

        Raises:
            ConfigError: the text has no words.
        """
        numbers = [*self.pieces(self.canonical(text))[: length - 1], self.end]
        return numbers + [self.padding] * (length - len(numbers))


def vocabulary_file(folder: Path) -> Path:
    """The file with a model's vocabulary.

    Raises:
        ModelError: the folder has none.
    """
    for name in VOCABULARY_FILES:
        if (folder / name).is_file():
            return folder / name
    raise ModelError(
        f"{folder}: no tokenizer in this folder; to search by text put {' or '.join(VOCABULARY_FILES)} and"
        f" {TOKENIZER_CONFIG_FILE} of the same model into it"
    )


def open_tokenizer(folder: Path) -> Tokenizer:
    """Reads the tokenizer of a model folder.

    The file's own rules for what stands around a text are not used: versions of ``transformers`` read and write them
    differently, and one number too many or too few changes every vector.

    Raises:
        ModelError: a file is missing or broken, or the package that reads it is.
    """
    vocabulary = vocabulary_file(folder)
    settings_path = folder / TOKENIZER_CONFIG_FILE
    if not settings_path.is_file():
        raise ModelError(f"{folder}: no {TOKENIZER_CONFIG_FILE} in this folder; download the model again")
    settings = read_json(settings_path)
    try:
        pieces, number_of = (_fast if vocabulary.suffix == ".json" else _sentencepiece)(vocabulary)
    except (MemoryError, ModelError):
        raise
    # The two readers are foreign code that raises bare exceptions.
    except Exception as error:
        raise ModelError(f"{vocabulary}: broken file ({error}); download the model again") from error
    end, padding = (number_of(_content(settings.get(key))) for key in ("eos_token", "pad_token"))
    if end is None or padding is None:
        raise ModelError(
            f"{settings_path}: eos_token or pad_token is not in the vocabulary of {vocabulary.name}; the files do not"
            " belong together: download the model again"
        )
    return Tokenizer(pieces, end, padding, not str(settings.get("tokenizer_class")).startswith("SiglipTokenizer"))


def _content(token: Any) -> str:
    """A special token is written as its text, or as an object that holds it."""
    return str(token.get("content")) if isinstance(token, dict) else str(token)


def _fast(path: Path) -> tuple[Callable[[str], list[int]], Callable[[str], int | None]]:
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids, tokenizer.token_to_id


def _sentencepiece(path: Path) -> tuple[Callable[[str], list[int]], Callable[[str], int | None]]:
    try:
        sentencepiece = importlib.import_module("sentencepiece")
    except ImportError as error:
        raise ModelError(
            f"{path}: reading this vocabulary needs a package that is not installed; run `pip install sentencepiece`,"
            " or put the model's tokenizer.json beside it"
        ) from error
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return processor.encode, processor.piece_to_id
