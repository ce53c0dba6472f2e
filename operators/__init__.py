"""The operators of the plugin, one file each: form → run → result."""

from .apply_decisions import ApplyDecisions
from .build_region_index import BuildRegionIndex
from .check_catalogue import CheckCatalogue
from .clear_object_search import ClearObjectSearch
from .cluster_objects import ClusterObjects
from .compute_claid_regions import ComputeClaidRegions
from .compute_correspondences import ComputeCorrespondences
from .compute_cosalient_masks import ComputeCosalientMasks
from .compute_ffa import ComputeFFA
from .compute_foreground import ComputeForeground
from .create_pairs import CreatePairs
from .evaluate_correspondences import EvaluateCorrespondences
from .export_decisions import ExportDecisions
from .find_duplicates import FindDuplicates
from .find_exact_duplicates import FindExactDuplicates
from .find_leaks import FindLeaks
from .find_symmetry_errors import FindSymmetryErrors
from .match_objects import MatchObjects
from .search_by_object import SearchByObject
from .show_duplicate_groups import ShowDuplicateGroups
from .show_object_clusters import ShowObjectClusters
from .show_region_level import ShowRegionLevel
from .tag_duplicates import TagDuplicates
from .train_matcher import TrainMatcher
from .undo_duplicate_tags import UndoDuplicateTags
from .verify_pairs import VerifyPairs

OPERATORS = (
    ComputeForeground,
    ComputeFFA,
    FindExactDuplicates,
    FindDuplicates,
    ShowDuplicateGroups,
    TagDuplicates,
    UndoDuplicateTags,
    ExportDecisions,
    ApplyDecisions,
    ClusterObjects,
    ShowObjectClusters,
    FindLeaks,
    ComputeClaidRegions,
    BuildRegionIndex,
    SearchByObject,
    ClearObjectSearch,
    ShowRegionLevel,
    CreatePairs,
    MatchObjects,
    ComputeCorrespondences,
    EvaluateCorrespondences,
    FindSymmetryErrors,
    ComputeCosalientMasks,
    TrainMatcher,
    VerifyPairs,
    CheckCatalogue,
)
