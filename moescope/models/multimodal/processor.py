"""The processor that a model comes with (AutoProcessor), and calling it: texts and media in, a batch for the model out."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...foreign import doing, said
from ...inputs import Medium

KINDS = ("image", "video", "audio")
_FILES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
_PARTS = {"image": ("image_processor",), "video": ("video_processor",), "audio": ("feature_extractor", "audio_processor")}
OFFSETS = ("offset_mapping", "text_replacement_offsets")


@dataclass(frozen=True)
class Asked:
    """What a processor is asked for one record: a text in its own words, and the media that the text speaks of, in order."""

    text: str
    media: tuple[Medium, ...]
    where: str

    def of(self, kind: str) -> list[Medium]:
        """The media of one kind."""
        return [medium for medium in self.media if medium.kind == kind]


def processor_of(folder: Path | str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """A model's own processor; or None and why there is none, which only media need."""
    import transformers

    try:
        with doing("loading its processor", InputError):
            found = transformers.AutoProcessor.from_pretrained(folder, **options)
    except InputError as error:
        return None, f"comes with a processor that cannot be used ({_needed(error)})"
    return (found, "") if is_processor(found) else (None, "comes with a processor of texts alone")


def has_processor(folder: Path) -> bool:
    """Whether a model's folder has the files of a processor."""
    return any((folder / name).exists() for name in _FILES)


def is_processor(found: Any) -> bool:
    """Whether this makes inputs of texts together with media."""
    return getattr(found, "tokenizer", None) is not None and any(takes(found, kind) for kind in KINDS)


def takes(processor: Any, kind: str) -> bool:
    """Whether a processor has a part for media of this kind."""
    return any(getattr(processor, name, None) is not None for name in _PARTS[kind])


def _needed(error: InputError) -> str:
    """The first sentence of what Transformers says of a library that is not there, else the whole."""
    text = str(error)
    return text if "not found in your environment" not in text else text.split(" Check out", 1)[0].rstrip(". ")


def token_of(processor: Any, kind: str) -> str | None:
    """The word that stands for one medium of a kind in a processor's texts."""
    found = getattr(processor, f"{kind}_token", None)
    return found if isinstance(found, str) else getattr(found, "content", None)


def batch_of(processor: Any, asked: Sequence[Asked], left: bool = False, offsets: bool = False) -> Any:
    """A batch of tensors, padded on the right (or left); with `offsets` also where each token stands in the text.

    InputError naming the record, or the batch, for which the processor fails.
    """
    told: dict[str, Any] = {"return_tensors": "pt"}
    if len(asked) > 1:
        told |= {"padding": True, "padding_side": "left" if left else "right"}
    if offsets:
        told |= {"return_offsets_mapping": True, "return_text_replacement_offsets": True}
    start = getattr(processor.tokenizer, "bos_token", None)
    if start and all(one.text.startswith(start) for one in asked):
        told["add_special_tokens"] = False  # the template wrote it
    with _failing(processor, asked):
        return processor(text=[one.text for one in asked], **_media(processor, asked), **told)


@contextmanager
def _failing(processor: Any, asked: Sequence[Asked]) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # every family's processor has its own
        rest = f" and {len(asked) - 1} more" if len(asked) > 1 else ""
        raise InputError(f"{asked[0].where}{rest}: {type(processor).__name__} fails ({said(error)}); leave it out") from error


def _media(processor: Any, asked: Sequence[Asked]) -> dict[str, Any]:
    """Arguments of a call: pictures, videos and sound of all records."""
    found: dict[str, Any] = {}
    images = [[medium.pixels().copy() for medium in one.of("image")] for one in asked]
    if any(images):
        found["images"] = images if all(images) else [picture for own in images for picture in own]
    videos = [medium for one in asked for medium in one.of("video")]
    if videos:
        found |= _videos(videos)
    if sounds := [medium for one in asked for medium in one.of("audio")]:
        rate = _rate(processor)
        found |= {"audio": [medium.samples(rate) for medium in sounds], "sampling_rate": rate}
    return found


def _videos(videos: list[Medium]) -> dict[str, Any]:
    """Frames as they are; of films, whose rate is known, the processor takes as many as it does."""
    from transformers.video_utils import VideoMetadata

    found = [medium.pixels().copy() for medium in videos]
    rates = [medium.rate for medium in videos]
    if any(rate is None for rate in rates):
        return {"videos": found, "do_sample_frames": False}
    told = [
        VideoMetadata(total_num_frames=len(f), fps=r, duration=len(f) / r, frames_indices=list(range(len(f))))  # type: ignore[operator]
        for f, r in zip(found, rates)
    ]
    return {"videos": found, "video_metadata": told}


def _rate(processor: Any) -> int:
    """Samples a second that a processor hears."""
    for name in _PARTS["audio"]:
        rate = getattr(getattr(processor, name, None), "sampling_rate", None)
        if isinstance(rate, int):
            return rate
    return 16000


def array(values: Any) -> np.ndarray:
    """A tensor, list or array of a batch as an array."""
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values)
