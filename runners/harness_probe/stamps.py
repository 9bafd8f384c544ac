"""A kernel of one thread that writes the GPU's clock into a slot of memory.

Timing events inside a CUDA graph split it into pieces that wait for each other: next to NCCL's
kernels one cost 16 to 20 us on H200s. A kernel that does nothing but store `%globaltimer` (PTX
ISA, "Special Registers": nanoseconds, one counter a device) is a node like any other. The driver
compiles the few instructions when they are loaded; no compiler need be installed.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

_PTX: Final = b"""
.version 6.3
.target sm_70
.address_size 64
.visible .entry harness_stamp(.param .u64 slot)
{
    .reg .u64 %place;
    .reg .u64 %now;
    ld.param.u64 %place, [slot];
    cvta.to.global.u64 %place, %place;
    mov.u64 %now, %globaltimer;
    st.global.u64 [%place], %now;
    ret;
}
\0"""
_LIBRARY: Final = "libcuda.so.1"
ITEM_BYTES: Final = 8


class StampError(RuntimeError):
    """The kernel cannot be had here; the message says why."""


class StampKernel:
    """The loaded kernel. Load it in the thread that uses the device, outside of any capture.

    Raises:
        StampError: no NVIDIA driver library, or it refuses the kernel.
    """

    def __init__(self) -> None:
        try:
            self._driver = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise StampError(f"{_LIBRARY}: {error}") from error
        self._module = ctypes.c_void_p()
        self._function = ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(self._module), _PTX)
        name = b"harness_stamp"
        self._call("cuModuleGetFunction", ctypes.byref(self._function), self._module, name)

    def launch(self, stream: int, address: int) -> None:
        """Write the clock to `address` (device memory, 8 bytes) when `stream` gets there.

        Raises:
            StampError: the driver refuses the launch.
        """
        slot = ctypes.c_uint64(address)
        parameters = (ctypes.c_void_p * 1)(ctypes.addressof(slot))
        one, none = ctypes.c_uint(1), ctypes.c_uint(0)
        shape = (one,) * 6
        handle = ctypes.c_void_p(stream)
        self._call("cuLaunchKernel", self._function, *shape, none, handle, parameters, None)

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(code, ctypes.byref(text))
            said = (text.value or b"error").decode(errors="replace")
            raise StampError(f"{name}: {said} ({code})")
