"""The operators of the plugin, one file each: form → run → result."""

from .build_region_index import BuildRegionIndex
from .clear_object_search import ClearObjectSearch
from .compute_claid_regions import ComputeClaidRegions
from .compute_ffa import ComputeFFA
from .compute_foreground import ComputeForeground
from .find_duplicates import FindDuplicates
from .find_exact_duplicates import FindExactDuplicates
from .search_by_object import SearchByObject
from .show_duplicate_groups import ShowDuplicateGroups
from .show_region_level import ShowRegionLevel
from .tag_duplicates import TagDuplicates
from .undo_duplicate_tags import UndoDuplicateTags

OPERATORS = (
    ComputeForeground,
    ComputeFFA,
    FindExactDuplicates,
    FindDuplicates,
    ShowDuplicateGroups,
    TagDuplicates,
    UndoDuplicateTags,
    ComputeClaidRegions,
    BuildRegionIndex,
    SearchByObject,
    ClearObjectSearch,
    ShowRegionLevel,
)
