"""The one place that talks to NVML (the package nvidia-ml-py, imported as pynvml).

Field ids, units and scopes are those of nvml.h: energy in mJ since the driver was loaded, power
in mW, NVLink throughput counters in KiB (scope 0xFFFFFFFF: all links together).
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from harness_collectors.sampling import Unavailable

ALL_LINKS: Final = 0xFFFFFFFF
NO_DRIVER_HINT: Final = (
    "run on a node with an NVIDIA GPU, and bind its driver into the container (apptainer --nv)"
)
_VALUE_FIELDS: Final = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""nvmlValueType_t to the member of nvmlValue_t, in the order of the enumeration."""
_NO_DRIVER: Final = (9, 12)  # NVML_ERROR_DRIVER_NOT_LOADED, NVML_ERROR_LIBRARY_NOT_FOUND


class NvmlError(Exception):
    """A call that failed: NVML's return code and its text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code


class Device(Protocol):
    """What the sampler needs of one GPU. Every method may raise `NvmlError`."""

    def identity(self) -> dict[str, Any]:
        """index, uuid, name, pci, architecture."""

    def fields(self, ids: Sequence[tuple[int, int]]) -> list[float | NvmlError]:
        """Field values by (field id, scope), each with its own outcome."""

    def call(self, name: str) -> float:
        """A value that has a call of its own, by the names of `CALLS`."""

    def links(self) -> list[dict[str, Any]]:
        """Its NVLinks: `link`, `active` and the PCI address of the other side (None: unknown)."""


class Library(Protocol):
    """NVML, opened."""

    def facts(self) -> dict[str, Any]:
        """Versions of driver and NVML."""

    def devices(self) -> list[Device]:
        """All GPUs that this process may see."""

    def close(self) -> None:
        """Let go of the library."""


class _PynvmlDevice:
    """One GPU through pynvml."""

    def __init__(self, nvml: Any, index: int) -> None:
        self._nvml = nvml
        self._index = index
        self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
        self._calls: dict[str, Callable[[], Any]] = {
            "busy": lambda: nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu,
            "memory_used": lambda: nvml.nvmlDeviceGetMemoryInfo(self._handle).used,
            "clock_sm": lambda: nvml.nvmlDeviceGetClockInfo(self._handle, nvml.NVML_CLOCK_SM),
            "clock_memory": lambda: nvml.nvmlDeviceGetClockInfo(self._handle, nvml.NVML_CLOCK_MEM),
            "clock_reasons": lambda: _clock_reasons(nvml, self._handle),
            "temperature": lambda: nvml.nvmlDeviceGetTemperature(
                self._handle, nvml.NVML_TEMPERATURE_GPU
            ),
            "power_usage": lambda: nvml.nvmlDeviceGetPowerUsage(self._handle),
        }

    def identity(self) -> dict[str, Any]:
        """index, uuid, name, pci, architecture."""
        nvml, handle = self._nvml, self._handle
        try:
            return {
                "index": self._index,
                "uuid": _text(nvml.nvmlDeviceGetUUID(handle)),
                "name": _text(nvml.nvmlDeviceGetName(handle)),
                "pci": _text(nvml.nvmlDeviceGetPciInfo(handle).busId),
                "architecture": int(nvml.nvmlDeviceGetArchitecture(handle)),
            }
        except nvml.NVMLError as error:
            raise _translate(error) from None

    def fields(self, ids: Sequence[tuple[int, int]]) -> list[float | NvmlError]:
        """Field values in one call; `nvmlReturn` of each is looked at."""
        try:
            values = self._nvml.nvmlDeviceGetFieldValues(self._handle, list(ids))
        except self._nvml.NVMLError as error:
            raise _translate(error) from None
        return [self._value(value) for value in values]

    def _value(self, value: Any) -> float | NvmlError:
        code = int(value.nvmlReturn)
        if code != 0:
            return NvmlError(code, _text(self._nvml.nvmlErrorString(code)))
        if not 0 <= value.valueType < len(_VALUE_FIELDS):
            return NvmlError(-1, f"unknown value type {value.valueType}")
        return float(getattr(value.value, _VALUE_FIELDS[value.valueType]))

    def call(self, name: str) -> float:
        """A value that has a call of its own."""
        try:
            return float(self._calls[name]())
        except self._nvml.NVMLError as error:
            raise _translate(error) from None
        except AttributeError as error:
            raise NvmlError(13, f"this pynvml lacks the call: {error}") from None

    def links(self) -> list[dict[str, Any]]:
        """Its NVLinks; none on a GPU without."""
        nvml, found = self._nvml, []
        for link in range(int(getattr(nvml, "NVML_NVLINK_MAX_LINKS", 18))):
            try:
                active = nvml.nvmlDeviceGetNvLinkState(self._handle, link) == 1
            except nvml.NVMLError:
                break  # not supported, or beyond the last
            remote = None
            if active:
                with contextlib.suppress(nvml.NVMLError):
                    remote = _text(nvml.nvmlDeviceGetNvLinkRemotePciInfo(self._handle, link).busId)
            found.append({"link": link, "active": active, "remote": remote})
        return found


class _PynvmlLibrary:
    """NVML through pynvml."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    def facts(self) -> dict[str, Any]:
        """Versions of driver and NVML."""
        return {
            "driver": _text(self._nvml.nvmlSystemGetDriverVersion()),
            "nvml": _text(self._nvml.nvmlSystemGetNVMLVersion()),
        }

    def devices(self) -> list[Device]:
        """All GPUs that this process may see."""
        count = self._nvml.nvmlDeviceGetCount()
        return [_PynvmlDevice(self._nvml, index) for index in range(count)]

    def close(self) -> None:
        """Let go of the library."""
        self._nvml.nvmlShutdown()


def open_library() -> Library:
    """Initialise NVML.

    Raises:
        Unavailable: no driver, no library, or a mismatch, with what to do.
    """
    try:
        pynvml: Any = importlib.import_module("pynvml")
    except ImportError:
        raise Unavailable("nvidia-ml-py is not installed", "pip install nvidia-ml-py") from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        code = int(error.value)
        if code in _NO_DRIVER:
            raise Unavailable("no NVIDIA driver", NO_DRIVER_HINT) from None
        raise Unavailable(f"NVML does not start: {error}", "try nvidia-smi on this node") from None
    return _PynvmlLibrary(pynvml)


def _clock_reasons(nvml: Any, handle: Any) -> int:
    # Renamed in driver 535; old bindings have only the old name.
    call = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
    call = call or nvml.nvmlDeviceGetCurrentClocksThrottleReasons
    return int(call(handle))


def _translate(error: Any) -> NvmlError:
    return NvmlError(int(error.value), str(error))


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
