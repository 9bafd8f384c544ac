"""The capture half that collectors with a sampler on every node share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness_collectors.sampling import interval_option
from harness_schemas.spi import CapturePlan, CaptureRequest, SamplerSpec


class SampledCollector:
    """A collector whose module has the factory `sampler(run_dir, host, options)`."""

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """`interval`: between samples, at least 100ms; default 1s.

        Raises:
            ValueError: an unknown option, or an interval that cannot be used.
        """
        return interval_option(given)

    def prepare(self, request: CaptureRequest) -> CapturePlan:
        """One sampler a node."""
        spec = SamplerSpec(f"{type(self).__module__}:sampler", dict(request.options))
        return CapturePlan(samplers=(spec,), switchable=True)
