"""Single files of models on the Hugging Face hub."""

from pathlib import Path

from ...errors import InputError
from ...foreign import one_line


def hub_file(name: str, file: str) -> Path | None:
    """A file of the model of that name, from the cache or the hub; None where it is no name of the hub's. InputError where
    neither has it."""
    if name.count("/") != 1 or name.startswith((".", "/")) or name.endswith(".json") or Path(name).parent.is_dir():
        return None
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(name, file)
    if isinstance(cached, str):
        return Path(cached)
    try:
        HfApi().model_info(name, timeout=10)  # asked once: a download would try for half a minute where nobody answers
        return Path(hf_hub_download(name, file))
    except Exception as error:  # network, names, permissions: each library has its own
        raise InputError(
            f"there is no folder or file {name}, and the hub gives no {file} of that name ({one_line(str(error), 120)}): name "
            f"the model's folder or {file}"
        ) from error
