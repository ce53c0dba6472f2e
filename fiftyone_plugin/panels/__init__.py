"""The panels of the plugin: reviewing duplicate groups, same-object clusters, and matched pairs."""

from .duplicates import DuplicatesPanel
from .matching import MatchingPanel
from .objects import ObjectsPanel

PANELS = (DuplicatesPanel, ObjectsPanel, MatchingPanel)
