"""Names of the Hugging Face hub: asked once, and taken from the cache where it does not answer."""

import re
from typing import Any

from ..errors import ModelError

HUB_NAME = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", re.ASCII)


def from_hub(name: str, revision: str | None) -> dict[str, Any]:
    """Options for a name of the hub. ModelError where neither the hub nor the cache has it."""
    if _answers(name):
        return {}
    from huggingface_hub import try_to_load_from_cache

    if not isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
        raise ModelError(
            f"{name} is not here and the hub cannot be reached: check the name or the network, or give a local folder"
        )
    return {"local_files_only": True}


def _answers(name: str) -> bool:
    """Ask once, for at most five seconds, where loading would try for half a minute."""
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import HfHubHTTPError

    if HF_HUB_OFFLINE:
        return False
    try:
        HfApi().model_info(name, timeout=5)
    except HfHubHTTPError:
        return True  # it says no, which loading will explain
    except Exception:  # each HTTP library has its own
        return False
    return True
