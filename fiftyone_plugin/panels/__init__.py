"""The panels of the plugin: reviewing duplicate groups, same-object clusters, matched pairs, and their keypoints."""

from .correspondences import CorrespondencesPanel
from .duplicates import DuplicatesPanel
from .matching import MatchingPanel
from .objects import ObjectsPanel

PANELS = (DuplicatesPanel, ObjectsPanel, MatchingPanel, CorrespondencesPanel)
