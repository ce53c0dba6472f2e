"""The operators of the plugin, one file each: form → run → result."""

from .compute_ffa import ComputeFFA
from .compute_foreground import ComputeForeground
from .find_duplicates import FindDuplicates
from .find_exact_duplicates import FindExactDuplicates
from .show_duplicate_groups import ShowDuplicateGroups
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
)
