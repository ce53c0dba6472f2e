"""Names of the pair matchers that come with the package; imports nothing, so that forms can."""

TRAINING_FREE = "training_free"
TRAINING_FREE_PAPER = "training_free_paper"
DEMO = "demo"

# All that need a backbone and no training of their own.
FREE_MATCHERS = (TRAINING_FREE, TRAINING_FREE_PAPER)
