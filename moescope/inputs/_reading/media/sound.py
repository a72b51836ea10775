"""Sound: samples of one channel, from bytes of a file or from an array.

WAV is read by SciPy; other files by soundfile, where it is installed (pip install soundfile).
"""

import warnings
from io import BytesIO
from math import gcd
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np

from ....errors import InputError
from ....foreign import one_line


def wave(plain: Any, where: str) -> tuple[np.ndarray, int | None]:
    """(samples,) float32 in -1 … 1 and samples a second (None: not said). InputError where it is no sound."""
    rate = None
    if isinstance(plain, tuple) and len(plain) == 2 and isinstance(plain[1], int | None):
        plain, rate = plain
    if isinstance(plain, bytes):
        plain, rate = _decoded(plain, where)
    found = np.asarray(plain)
    if found.dtype.kind not in "iuf" or found.ndim not in (1, 2):
        raise InputError(f"{where} is an array {found.shape} {found.dtype}; give (samples,) numbers, or (samples, channels)")
    found = _floats(found)
    found = found.mean(axis=1 if found.shape[0] >= found.shape[1] else 0) if found.ndim == 2 else found
    if not found.size:
        raise InputError(f"{where} has no samples; leave it out")
    if not np.isfinite(found).all():
        raise InputError(f"{where} holds samples that are no numbers (NaN or infinite); repair it or leave it out")
    return found.astype(np.float32), rate


def resampled(samples: np.ndarray, rate: int | None, wanted: int) -> np.ndarray:
    """At `wanted` samples a second; as they are, where nothing says what they have."""
    if rate is None or rate == wanted:
        return samples
    from scipy.signal import resample_poly

    common = gcd(rate, wanted)
    return np.asarray(resample_poly(samples, wanted // common, rate // common), np.float32)


def _floats(samples: np.ndarray) -> np.ndarray:
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    middle = 128 if samples.dtype == np.uint8 else 0
    scale = {1: 128.0, 2: 32768.0}.get(samples.dtype.itemsize, 2147483648.0)
    return (samples.astype(np.float32) - middle) / scale


def _decoded(data: bytes, where: str) -> tuple[np.ndarray, int]:
    if data[:4] in (b"RIFF", b"RIFX", b"RF64") and data[8:12] == b"WAVE":
        return _wav(data, where)
    try:
        import soundfile
    except ImportError:
        raise InputError(
            f"{where} is no WAV file, and soundfile, which decodes others, is not installed: pip install soundfile, or save it "
            "as WAV"
        ) from None
    with NamedTemporaryFile() as file:  # of what is no file, it prints what goes wrong inside
        file.write(data)
        file.flush()
        try:
            samples, rate = soundfile.read(file.name, dtype="float32")
        except Exception as error:  # libsndfile's own, and what it says of damaged files
            said = one_line(str(error)).rpartition(": ")[2].rstrip(".")
            raise InputError(f"{where} is no sound that soundfile can decode ({said}): repair it.") from error
    return samples, int(rate)


def _wav(data: bytes, where: str) -> tuple[np.ndarray, int]:
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of chunks that are no sound
            rate, samples = wavfile.read(BytesIO(data))
    except Exception as error:  # SciPy raises many kinds on damaged files
        raise InputError(
            f"{where} is no WAV that can be decoded ({one_line(str(error))}): repair it or leave it out."
        ) from error
    if rate <= 0:
        raise InputError(f"{where} says that it has {rate} samples a second; repair it or leave it out")
    return samples, int(rate)
