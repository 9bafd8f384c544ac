"""The recorder under its public name: `from harness import probe`."""

from harness_probe import *  # noqa: F403
from harness_probe import __all__ as __all__
