"""Whether the documents of each product show what its catalogue shows: a verdict per product, with the best pair."""

import os
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import fiftyone.core.collections as foc

from ..brain.backbones.device import Precision
from ..brain.errors import ConfigError
from .catalogue_evidence import Evidence
from .catalogue_fields import METHOD, check_catalogue_key
from .catalogue_job import FALSE_MATCHES, LEAST_CONTROLS, CatalogueJob, control_pairs, control_threshold
from .catalogue_plan import share_out
from .catalogue_report import left_out, report_check
from .catalogue_results import check_csv
from .catalogue_sides import CATALOGUE, DOCUMENT, Product, Sides, find_sides
from .comparison_store import ComparisonStore
from .engine.local import Progress, check_counts
from .match_job import CAPACITY, PictureShelf
from .match_setup import MatcherChoice, mask_files, recorded
from .own_files import dataset_folder
from .runs import RunSummary, nothing_to_do
from .steps import plain_function


def check_catalogue_steps(
    samples: foc.SampleCollection,
    product: str,
    key: str = "catalogue",
    *,
    use: str | None = None,
    catalogue: str = CATALOGUE,
    document: str = DOCUMENT,
    documents: foc.SampleCollection | str | None = None,
    name: str | None = None,
    matcher: str = "training_free",
    model: str | None = None,
    saliency: str = "auto",
    refine: bool | None = None,
    threshold: float | None = None,
    controls: int = 300,
    max_per_product: int = 200,
    max_pairs: int = 20_000,
    path: str | os.PathLike | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    num_workers: int = 2,
    overwrite: bool = False,
    skip_failures: bool = True,
) -> Generator[Progress, None, RunSummary]:
    """Says of each product whether its documents show what its catalogue images show, and by which pair of images.

    Every catalogue image of a product is compared with every document image of it. The best pair is the evidence:
    the evidence pairs of all products become a pair dataset, with masks, points, score and verdict as of
    :func:`match_objects`, ``product`` and ``product_verdict``. The samples get ``<key>_product_verdict``, and of their
    own best pair ``<key>_score``, ``_verdict``, ``_no_common_region``, ``_partner`` and ``_pairs``; ``<key>`` is the
    mask of those in the evidence. The saved view ``<key>_without_evidence`` shows the products to look after, a CSV
    file lists all. A second run compares only what is new or has changed; another threshold compares nothing.

    Verdicts of a product: ``"match"``; ``"no_match"``, no pair reaches the threshold; ``"no_document"`` and
    ``"no_catalogue"``, that side has no image; ``"not_compared"``, no image could be read, or the limits left it out.
    A pair that a reviewer has accepted or rejected in the evidence counts as decided in the next run.

    Args:
        samples: a dataset or view of images: the catalogue, and the documents, too, where ``use`` tells them apart.
        product: field that names the product of an image; a path such as ``"ground_truth.label"`` will do.
        key: name of the run and of its fields.
        use: field that tells catalogue from document images.
        catalogue, document: its values; images with another value are left out.
        documents: instead of ``use``, the documents: a dataset (or its name, or a view) with the same product field.
        name: of the evidence dataset; None is ``<dataset>-<key>``.
        matcher: ``"training_free"``, ``"training_free_paper"``, or a trained one, by its name or folder.
        model: backbone of the training-free matcher; None takes the best one at hand.
        saliency: what stands out in an image, see :func:`match_objects`.
        refine: give masks the edges of the picture by GrabCut; None leaves it to the matcher.
        threshold: least score of a match, from 0 to 1; None finds it out by ``controls``.
        controls: most comparisons between images of different products. The threshold is the score that 2 % of them
            exceed, or the matcher's if that is higher, or if there are fewer than 20; 0 takes the matcher's.
        max_per_product: most comparisons of a product; they are spread over its images.
        max_pairs: most comparisons in all, those of ``controls`` not counted.
        path: the CSV file, replaced where it exists; None is a place of this dataset's own, which the summary names.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        precision: number format of the networks: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        num_workers: threads that decode.
        overwrite: compare again what is up to date.
        skip_failures: put the reason of a failure into ``<key>_error`` and go on; False raises at the first.

    Returns:
        What was done; ``counts`` has ``products``, ``matched``, ``without_evidence``, ``comparisons``, of these
        ``done`` and ``skipped`` (known already), and images that ``failed``; ``details`` the ``threshold``, products by
        ``verdicts``, the first rows of the ``table``, and the names of ``dataset``, ``view`` and ``path``.

    Raises:
        ConfigError: no such field, value or dataset, a name that is taken, or an option that cannot work.
        ModelError: a model cannot be loaded.
        ImageError: an image cannot be read, with ``skip_failures=False``.
    """
    started = time.perf_counter()
    check_counts(None, num_workers)
    limits = {"controls": controls, "max_per_product": max_per_product, "max_pairs": max_pairs}
    _check_limits(limits)
    sides = find_sides(samples, product, use, catalogue, document, documents)
    check_catalogue_key(sides, key)
    root = samples._root_dataset
    csv_path = check_csv(dataset_folder(root, "exports") / f"{key}.csv" if path is None else path)
    products, nameless = sides.read()
    if not products:
        return _nothing(product, nameless)
    choice = MatcherChoice(matcher, model, saliency, refine, threshold, device, precision)
    masks = _masks(sides, choice.mask_field, products)
    shares = share_out({one.name: one.sides for one in products}, max_per_product, max_pairs)
    others = control_pairs(products, controls) if threshold is None else []
    total = sum(shares.values()) + len(others)
    yield Progress(0, total, label="Loading the model")
    found, scorer = choice.load(), replace(choice, refine=False).load()
    evidence = Evidence(name or f"{root.name}-{key}", key, sides, found, saliency)
    store = ComparisonStore(dataset_folder(root, "comparisons") / f"{key}.jsonl")
    summary = RunSummary(key, METHOD, {"products": len(products)}, notices=choice.notices(found))
    config = {"key": key, "product": product, "use": use, "catalogue": catalogue, "document": document, **limits}
    config |= {"documents": sides.documents._dataset.name, **evidence.settings}
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="selfsame-catalogue")
    with recorded(samples, summary, config, started), pool:
        shelf = PictureShelf(found, pool, max(CAPACITY, 2 * min(max_per_product, _most_documents(products))))
        job = CatalogueJob(scorer, found, shelf, masks, store, overwrite, skip_failures, total)
        try:
            summary.notices += yield from _choose_threshold(job, others, threshold)
            checked = yield from job.check(products, shares, evidence)
        finally:
            summary.failed = job.failed
            summary.counts |= {"comparisons": total, "done": job.done, "skipped": job.skipped}
        yield Progress(total, total, label="Writing results")
        report_check(summary, checked, sides, evidence, csv_path)
        summary.notices += left_out(checked, nameless, sides.neither, product)
    return summary


check_catalogue = plain_function(check_catalogue_steps)


def _check_limits(limits: Mapping[str, int]) -> None:
    for option, value in limits.items():
        least = int(option != "controls")
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"{option}={value!r} must be a whole number of at least {least}")


def _nothing(product: str, nameless: int) -> RunSummary:
    summary = nothing_to_do(METHOD)
    if nameless:
        summary.notices = [f"Nothing to do: none of {nameless:,} images has a value in {product!r}."]
    return summary


def _most_documents(products: Sequence[Product]) -> int:
    return max(len(one.documents) for one in products)


def _masks(sides: Sides, field: str | None, products: Sequence[Product]) -> dict[str, str | None]:
    catalogue = [shown.id for product in products for shown in product.catalogue]
    documents = [shown.id for product in products for shown in product.documents]
    return {**mask_files(sides.catalogue, field, catalogue), **mask_files(sides.documents, field, documents)}


def _choose_threshold(
    job: CatalogueJob, others: Sequence[Any], given: float | None
) -> Generator[Progress, None, list[str]]:
    """Sets the matcher's threshold; sentences on where it comes from."""
    matcher = job.matcher
    if given is not None:
        return []
    found = yield from job.controls(others)
    reached = control_threshold(found)
    if reached is None:
        return [
            f"Threshold {matcher.threshold:.3f} is the matcher's; from {LEAST_CONTROLS} comparisons between different"
            " products on (controls=...) it would be found out for these images"
        ]
    own, matcher.threshold = matcher.threshold, max(matcher.threshold, reached)
    if matcher.threshold == own:
        return [f"Threshold {own:.3f} is the matcher's; hardly any comparison between different products reaches it"]
    sentence = (
        f"Threshold {matcher.threshold:.3f}: only {FALSE_MATCHES:.0%} of {len(found):,} comparisons between different"
        f" products exceed it (the matcher's own, {own:.3f}, is exceeded by"
        f" {sum(one.matches(own) for one in found) / len(found):.0%})"
    )
    return [sentence]
