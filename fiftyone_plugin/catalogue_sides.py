"""The two sides of a catalogue check: which images are of the catalogue, which are documents, and of which product."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import fiftyone as fo
import fiftyone.core.collections as foc
import fiftyone.core.media as fom

from ..brain.errors import ConfigError
from .dataset_io import image_samples
from .pairs import is_pair_dataset

CATALOGUE, DOCUMENT = "catalogue", "document"

# What says of which product an image is, or for what it is used: a word or a number.
_FIELD_TYPES = (fo.StringField, fo.IntField, fo.BooleanField)
_OWN = ("id", "filepath", "metadata", "created_at", "last_modified_at")

# So many values are listed where one was not found.
_VALUES_NAMED = 20


@dataclass(frozen=True)
class Shown:
    """An image of a product: its sample id and its file."""

    id: str
    filepath: str


@dataclass(frozen=True)
class Product:
    """A product with the images of both sides, in the order of their datasets."""

    name: str
    catalogue: list[Shown] = field(default_factory=list)
    documents: list[Shown] = field(default_factory=list)

    @property
    def sides(self) -> tuple[int, int]:
        """Number of catalogue and of document images."""
        return len(self.catalogue), len(self.documents)


@dataclass(frozen=True)
class Sides:
    """Both sides as flat collections, and the field that names the product in both.

    Attributes:
        catalogue, documents: what is compared with what.
        product: path of the field.
        neither: number of samples on neither side.
    """

    catalogue: foc.SampleCollection
    documents: foc.SampleCollection
    product: str
    neither: int = 0

    @property
    def datasets(self) -> list[fo.Dataset]:
        """The dataset of the catalogue and, where it is another, that of the documents."""
        first, second = self.catalogue._dataset, self.documents._dataset
        return [first] if first is second else [first, second]

    def read(self) -> tuple[list[Product], int]:
        """All products by name, and the number of images that name none.

        Names are compared as text, so that 17 in one dataset is "17" in the other.

        Raises:
            ConfigError: an image is on both sides.
        """
        found: dict[str, Product] = {}
        nameless, ids = 0, set()
        for side, samples in ((CATALOGUE, self.catalogue), (DOCUMENT, self.documents)):
            for sample_id, path, value in zip(*samples.values(["id", "filepath", self.product]), strict=True):
                if sample_id in ids:
                    raise ConfigError(
                        f"documents: sample {sample_id} is in the catalogue, too; give datasets or views without common"
                        " samples"
                    )
                ids.add(sample_id)
                if value is None:
                    nameless += 1
                    continue
                product = found.setdefault(str(value), Product(str(value)))
                (product.catalogue if side == CATALOGUE else product.documents).append(Shown(sample_id, path))
            # Only between the sides: within one, ids are unique anyway.
        return [found[name] for name in sorted(found)], nameless

    def count(self) -> dict[str, tuple[int, int]]:
        """Number of catalogue and of document images by product; the database counts, no sample is read."""
        sides = [self._counts(samples) for samples in (self.catalogue, self.documents)]
        return {name: (sides[0].get(name, 0), sides[1].get(name, 0)) for name in sorted({*sides[0], *sides[1]})}

    def _counts(self, samples: foc.SampleCollection) -> Mapping[str, int]:
        return {str(value): n for value, n in samples.count_values(self.product).items() if value is not None}


def find_sides(
    samples: foc.SampleCollection,
    product: str,
    use: str | None,
    catalogue: str,
    document: str,
    documents: foc.SampleCollection | str | None,
) -> Sides:
    """Both sides of a check, see :func:`.check_catalogue.check_catalogue` for the arguments.

    Raises:
        ConfigError: neither or both of ``use`` and ``documents`` are given, or a field or value does not exist.
    """
    flat = _flat(samples)
    if (use is None) == (documents is None):
        raise ConfigError(
            "say where the documents are: either use='<field>', with its values catalogue= and document=, or"
            " documents=<dataset>"
        )
    _check_field(flat, "product", product)
    if use is None:
        other = _flat(_collection(documents))
        _check_field(other, "product", product)
        return Sides(flat, other, product)
    _check_field(flat, "use", use)
    values = [_value(flat, use, option, text) for option, text in ((CATALOGUE, catalogue), (DOCUMENT, document))]
    if values[0] == values[1]:
        raise ConfigError(f"catalogue and document are both {catalogue!r}; they must be two values of {use!r}")
    first, second = (flat.match({use: value}) for value in values)
    return Sides(first, second, product, flat.count() - first.count() - second.count())


def naming_fields(samples: foc.SampleCollection) -> list[str]:
    """Fields, and attributes of labels, that could name a product or a use; ``product`` and ``use`` first."""
    schema = samples._dataset.get_field_schema(flat=True)
    lists = tuple(f"{path}." for path, kind in schema.items() if isinstance(kind, fo.ListField))
    names = [
        path
        for path, kind in schema.items()
        if isinstance(kind, _FIELD_TYPES)
        and path.split(".")[0] not in _OWN
        and not path.startswith(lists)
        and not path.endswith((".id", "._id", "_path", "_provenance", "_error"))
    ]
    return sorted(names, key=lambda name: (name not in ("product", "use"), name.count("."), name))


def _flat(samples: foc.SampleCollection) -> foc.SampleCollection:
    flat = image_samples(samples)
    if is_pair_dataset(flat):
        raise ConfigError("these are pairs already; check the catalogue of the dataset that they came from")
    if flat.media_type == fom.VIDEO:
        raise ConfigError("these are videos; extract frames with to_frames(sample_frames=True) and clone() the result")
    return flat


def _collection(documents: foc.SampleCollection | str | None) -> foc.SampleCollection:
    if not isinstance(documents, str):
        return documents
    if not fo.dataset_exists(documents):
        raise ConfigError(f"documents={documents!r}: there is no dataset of that name")
    return fo.load_dataset(documents)


def _check_field(samples: foc.SampleCollection, option: str, path: str) -> None:
    found = samples.get_field(path) if isinstance(path, str) and path else None
    if found is None or path not in naming_fields(samples):
        names = ", ".join(naming_fields(samples)[:_VALUES_NAMED]) or "none yet"
        raise ConfigError(
            f"{option}={path!r} is no field with one word or number per image in dataset {samples._dataset.name!r};"
            f" there are: {names}"
        )


def _value(samples: foc.SampleCollection, use: str, option: str, text: object) -> object:
    """The value of a field that reads like ``text``, since a form knows only text; a view may lack a side."""
    there = image_samples(samples._dataset).distinct(use)
    for value in there:
        if str(value) == str(text):
            return value
    names = ", ".join(repr(value) for value in there[:_VALUES_NAMED]) or "none"
    raise ConfigError(f"{option}={text!r} is no value of {use!r}; there are: {names}")
