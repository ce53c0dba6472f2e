"""Reading samples of a view in bounded chunks and writing their fields in batches."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class FieldSpec:
    """How a field is declared.

    Attributes:
        ftype: FiftyOne field class (``fo.FloatField`` ...).
        description: shown as the field's tooltip in the App.
        options: further arguments of ``dataset.add_sample_field`` (``embedded_doc_type``, ``subfield`` ...).
    """

    ftype: type
    description: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SampleItem:
    """What an engine knows of one sample; its vectors and labels are never loaded.

    Attributes:
        id: sample id.
        filepath: the image file.
        media_type: FiftyOne's media type of the sample.
        values: the extra values that the method asked for (mask, boxes ...), by path.
        file_stamp: size and modification time of the file; empty where it cannot be read.
    """

    id: str
    filepath: str
    media_type: str = "image"
    values: Mapping[str, Any] = field(default_factory=dict)
    file_stamp: str = ""
