"""The errors a user can act on: every message names the thing that is wrong and says what to do."""


class SelfsameError(Exception):
    """Base of all errors raised on purpose; its text is fit to be shown to a user as it stands."""


class ConfigError(SelfsameError, ValueError):
    """An option has a value that cannot work; the message names the option and the accepted values."""


class ImageError(SelfsameError):
    """One image cannot be used (missing, truncated, not an image ...); the rest of the batch goes on."""


class ModelError(SelfsameError):
    """A model cannot be loaded (no network, wrong name, broken file ...)."""
