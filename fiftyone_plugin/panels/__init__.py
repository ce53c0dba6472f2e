"""The panels of the plugin: reviewing duplicate groups, and reviewing same-object clusters."""

from .duplicates import DuplicatesPanel
from .objects import ObjectsPanel

PANELS = (DuplicatesPanel, ObjectsPanel)
