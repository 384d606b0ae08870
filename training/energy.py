"""What a card has used so far, from the counter of its driver (NVML). Nothing is estimated: a card that does not count says nothing.

The counter is the whole card's: idle power and whatever else computes on it are in a difference of two readings.
"""

import ctypes

_MILLI = 1000.0


def joules(uuid: str) -> float | None:
    """Joules since the driver was loaded, of the card of that UUID (`GPU-…`); None where no driver, card or counter answers."""
    try:
        driver = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    card, used = ctypes.c_void_p(), ctypes.c_ulonglong()
    if driver.nvmlInit_v2():
        return None
    try:
        if driver.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(card)):
            return None
        if driver.nvmlDeviceGetTotalEnergyConsumption(card, ctypes.byref(used)):
            return None
    finally:
        driver.nvmlShutdown()
    return used.value / _MILLI
