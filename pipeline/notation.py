"""How numbers are written for readers, in the terminal, in sentences and in reports alike.

Whole numbers inside a sentence may be written ``{n:,}``, which is what :func:`count` does. All
others go through this module; only files for programs (CSV, JSON, paths of SVG) have their own.
"""

from __future__ import annotations

DASH = "\N{EN DASH}"  # where there is no number
_MINUS = "\N{MINUS SIGN}"


def number(value: object, digits: int = 3) -> str:
    """Write a number with so many decimals, thousands grouped; a dash for anything else."""
    return f"{value:,.{digits}f}" if isinstance(value, int | float) else DASH


def count(value: float | None) -> str:
    """Write a whole number, thousands grouped."""
    return number(value, 0)


def percent(value: float | None, digits: int = 1) -> str:
    """Write a share (0 to 1) in percent, without the sign, as columns in percent have it."""
    return DASH if value is None else number(100 * value, digits)


def share(value: float | None, digits: int = 1) -> str:
    """Write a share (0 to 1) in percent, with the sign."""
    return DASH if value is None else f"{percent(value, digits)} %"


def signed_points(value: float, digits: int = 1) -> str:
    """Write a difference of shares (0 to 1) in percentage points, signed, without the unit."""
    return signed(100 * value, digits)


def signed(value: float, digits: int = 1, *, plus: bool = True) -> str:
    """Write a number with a true minus sign, and a plus where wanted; 0 has no sign."""
    text = number(abs(value), digits)
    if float(text.replace(",", "")) == 0:
        return text
    return (_MINUS if value < 0 else "+" if plus else "") + text


def interval(low: float, high: float, digits: int = 1) -> str:
    """Write an interval of shares (0 to 1) in percent: ``91.7 to 98.2``."""
    return f"{_shown(low, digits)} to {_shown(high, digits)}"


def signed_interval(low: float, high: float, digits: int = 1) -> str:
    """Write an interval of differences of shares in percentage points, signed."""
    return f"{signed_points(low, digits)} to {signed_points(high, digits)}"


def _shown(value: float, digits: int) -> str:
    return signed(100 * value, digits, plus=False)


def p_value(value: float | None) -> str:
    """Write a p-value: three decimals, or the bound ``< 0.001``."""
    return DASH if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def p_equals(value: float) -> str:
    """Write a p-value as a sentence has it: ``p = 0.031`` or ``p < 0.001``."""
    text = p_value(value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def chance(value: float) -> str:
    """Write a probability in percent; none is exactly 0 or 1."""
    return "< 1 %" if value < 0.005 else "> 99 %" if value > 0.995 else share(value, 0)


def duration(seconds: float | None) -> str:
    """Write a time in the unit that suits it: ``40 ms``, ``2.3 s``, ``61 s``, ``10 min``."""
    if seconds is None:
        return DASH
    if seconds == 0:
        return "0 s"
    if seconds < 0.0005:
        return "< 1 ms"
    if seconds < 0.0995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 119.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7170 else f"{seconds / 3600:.1f} h"


def megabytes(n_bytes: float | None) -> str:
    """Write a number of bytes in MB, without the unit, as columns in MB have it."""
    return DASH if n_bytes is None else number(n_bytes / 1e6, 1)


def size(n_bytes: float) -> str:
    """Write a number of bytes with its unit: ``14.2 MB``, ``250 MB``, ``2.1 GB``."""
    for unit, value in (("GB", n_bytes / 1e9), ("MB", n_bytes / 1e6), ("kB", n_bytes / 1e3)):
        if value >= 0.9995 or (unit == "kB" and n_bytes >= 1000):
            return f"{value:.0f} {unit}" if value >= 99.5 else f"{value:.1f} {unit}"
    return f"{n_bytes:.0f} B"


def megapixels(n_pixels: float) -> str:
    """Write a number of pixels with its unit: ``100 Mpx``, ``0.25 Mpx``."""
    return f"{n_pixels / 1e6:g} Mpx"


def compact(value: float | None) -> str:
    """Write a large count shortly: ``3.4 M``, ``2.6 k``."""
    if value is None:
        return DASH
    for least, unit in ((10**6, "M"), (10**3, "k")):
        if value >= least:
            return f"{value / least:.1f} {unit}"
    return f"{value:g}"


def scientific(value: object) -> str:
    """Write a value of a wide range, such as C: ``1.0e-4``."""
    if not isinstance(value, int | float):
        return DASH
    return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e+")
