"""What the package offers to Python: a function per operator, and the FFA model; imported on first use with torch."""

from importlib import import_module

# Name → the module of this package that defines it.
_HOMES = {
    "FFAModel": "model",
    "apply_decisions": "decision_apply",
    "build_region_index": "region_index",
    "check_catalogue": "check_catalogue",
    "clear_leaks": "leaks",
    "clear_object_search": "region_search",
    "cluster_objects": "object_clusters",
    "compute_cosalient_masks": "cosalient_masks",
    "compute_claid_regions": "regions",
    "compute_ffa": "compute",
    "compute_foreground": "compute",
    "create_pairs": "create_pairs",
    "decide": "decisions",
    "decision_log": "decisions",
    "export_decisions": "decision_export",
    "export_leaks": "leak_report",
    "find_duplicates": "duplicates",
    "find_exact_duplicates": "exact_duplicates",
    "find_leaks": "leaks",
    "match_objects": "match_objects",
    "compute_correspondences": "compute_correspondences",
    "load_correspondences": "correspondence_table",
    "evaluate_correspondences": "evaluate_correspondences",
    "find_symmetry_errors": "symmetry_errors",
    "load_symmetry_errors": "symmetry_errors",
    "exchange_labels": "keypoint_exchange",
    "undo_exchange": "keypoint_exchange",
    "exchanges": "keypoint_exchange",
    "regroup_duplicates": "duplicates",
    "search_by_object": "region_search",
    "show_duplicate_groups": "duplicate_views",
    "show_leaks": "leak_report",
    "show_object_clusters": "cluster_views",
    "show_region_level": "region_views",
    "tag_duplicates": "duplicate_tags",
    "train_matcher": "train_matcher",
    "undo_decision": "decisions",
    "undo_duplicate_tags": "duplicate_tags",
    "verify_pairs": "verify_pairs",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __package__), name)
