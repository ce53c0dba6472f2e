"""What a catalogue check writes to the original samples, and the saved view of products without evidence."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc

from ..brain.errors import ConfigError
from .catalogue_results import WITHOUT_EVIDENCE, Checked, Comparison
from .catalogue_sides import Sides
from .dataset_io import FieldSpec, image_samples
from .item_fields import Place, clear_items, write_items
from .match_fields import MATCHED, UNMATCHED, MatchFields
from .result_keys import check_result_key

METHOD = "check_catalogue"

_IMAGES = Place()


@dataclass(frozen=True)
class CatalogueFields(MatchFields):
    """The fields of a key on the original samples: those of a match, the verdict on the product, and failures."""

    of_pairs: bool = False

    @property
    def specs(self) -> dict[str, FieldSpec]:
        """All fields by name, the verdict on the product first."""
        verdict = FieldSpec(fo.StringField, "What the catalogue check says of the product of this image")
        error = FieldSpec(fo.StringField, "Why this image could not be compared", internal=True)
        return {self.name("product_verdict"): verdict, **super().specs, self.name("error"): error}

    @property
    def view(self) -> str:
        """Name of the saved view of products without evidence."""
        return f"{self.key}_without_evidence"


def check_catalogue_key(sides: Sides, key: str) -> None:
    """Refuses a key that is no name, or whose run, fields or saved view belong to somebody else.

    Raises:
        ConfigError: see above.
    """
    for dataset in sides.datasets:
        fields = CatalogueFields(key)
        check_result_key(dataset, key, METHOD, fields.specs)
        if dataset.has_saved_view(fields.view) and not _is_own_view(dataset, fields.view):
            raise ConfigError(
                f"dataset {dataset.name!r} has a saved view {fields.view!r}, which is not of this check; choose another"
                " key, or rename the view"
            )


def write_products(
    sides: Sides,
    fields: CatalogueFields,
    checked: Sequence[Checked],
    threshold: float,
    masks: Mapping[str, dict[str, Any]],
    failed: Mapping[str, str],
    info: Mapping[str, Any],
) -> int:
    """Writes what is said of each image and its product; what an earlier run with this key wrote is emptied first.

    Args:
        sides: where the samples are.
        fields: those of the key.
        checked: the products.
        threshold: least score of a match.
        masks: labels by sample id, of the images in the evidence.
        failed: reason by sample id.
        info: stored with the fields: the settings.

    Returns:
        The number of images of products without evidence.
    """
    rows = dict(_values(fields, checked, threshold, masks, failed))
    catalogue = [shown.id for one in checked for shown in one.product.catalogue]
    documents = [shown.id for one in checked for shown in one.product.documents]
    shares = [[*catalogue, *documents]] if len(sides.datasets) == 1 else [catalogue, documents]
    without = 0
    for dataset, ids in zip(sides.datasets, shares, strict=True):
        fields.declare(dataset, {"method": METHOD, "run": fields.key, **info})
        verdict = fields.name("product_verdict")
        dataset.create_index([(verdict, 1), (sides.product, 1)])
        clear_items(dataset, _IMAGES, list(fields.specs), verdict)
        write_items(dataset, _IMAGES, ((one, one, rows[one]) for one in ids))
        view = products_without_evidence(dataset, fields, sides.product)
        dataset.save_view(fields.view, view, description=_view_note(fields.key), overwrite=True)
        without += view.count()
    return without


def products_without_evidence(
    dataset: foc.SampleCollection, fields: CatalogueFields, product: str
) -> foc.SampleCollection:
    """The images of products without evidence, product by product; filters by an indexed field and holds no ids."""
    verdict = fields.name("product_verdict")
    view = image_samples(dataset).match({verdict: {"$in": list(WITHOUT_EVIDENCE)}})
    return view.sort_by([(verdict, 1), (product, 1)])


def _values(
    fields: CatalogueFields,
    checked: Sequence[Checked],
    threshold: float,
    masks: Mapping[str, dict[str, Any]],
    failed: Mapping[str, str],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Values by sample id."""
    for one in checked:
        verdict = one.verdict(threshold)
        own = _of_images(one)
        for shown in (*one.product.catalogue, *one.product.documents):
            values: dict[str, Any] = dict.fromkeys(fields.specs)
            values |= {
                fields.name("product_verdict"): verdict,
                fields.name("error"): failed.get(shown.id),
                fields.key: masks.get(shown.id),
            }
            if pairs := own.get(shown.id):
                best = one.best_of(pairs)
                matches = sum(one.matches(pair, threshold) for pair in pairs)
                values |= {
                    fields.name("score"): best.found.score,
                    fields.name("verdict"): MATCHED if matches else UNMATCHED,
                    fields.name("no_common_region"): best.found.nothing,
                    fields.name("partner"): best.document.id if shown.id == best.catalogue.id else best.catalogue.id,
                    fields.name("pairs"): matches,
                }
            yield shown.id, values


def _of_images(checked: Checked) -> dict[str, list[Comparison]]:
    """The comparisons of each image of a product."""
    found: dict[str, list[Comparison]] = {}
    for one in checked.compared:
        for shown in (one.catalogue, one.document):
            found.setdefault(shown.id, []).append(one)
    return found


def _view_note(key: str) -> str:
    return f"Images of products for which {METHOD} {key!r} found no evidence"


def _is_own_view(dataset: fo.Dataset, name: str) -> bool:
    return METHOD in (dataset.get_saved_view_info(name).get("description") or "")
