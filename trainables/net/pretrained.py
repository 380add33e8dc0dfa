"""Pretrained encoder weights: find the file, once and without waiting, and load it without dropping anything but heads.

`encoder_weights` is `imagenet` (or another name that smp lists for the encoder), or the path of a local file with the
upstream key names. Named weights come from the Hugging Face hub; what lies in its cache is used without asking the
network, and where there is neither cache nor network the error comes at once and says what to set.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants as hub
from torch import Tensor, nn

from trainables.net.vision_ops import smp, timm

FILE_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
REACH_TIMEOUT_S = 5.0


def is_path(weights: str) -> bool:
    """Whether `encoder_weights` is meant as a file, not as the name of published weights."""
    return weights.endswith(FILE_SUFFIXES) or os.sep in weights


def weights_file(encoder: str, weights: str) -> Path:
    """The local file of an encoder's weights, fetched from the hub if it is in no cache.

    Args:
        encoder: smp's name, or `tu-<timm name>`.
        weights: `imagenet`, another name that smp lists for the encoder, or a path.

    Raises:
        ValueError: there is no such file or name, or it can be neither found in the cache nor fetched.
    """
    if is_path(weights):
        path = Path(weights).expanduser()
        if not path.is_file():
            raise ValueError(f"encoder_weights: there is no file {str(path)!r}; give a path that exists, or null")
        return path
    repo, revision = _repository(encoder, weights)
    for name in HUB_FILES:
        cached = huggingface_hub.try_to_load_from_cache(repo, name, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    if problem := _unreachable():
        raise ValueError(_cannot_fetch(encoder, weights, repo, problem))
    return _fetch(encoder, weights, repo, revision)


def check_weights(encoder: str, weights: str) -> list[str]:
    """What is wrong with `encoder_weights`, without fetching anything; empty if nothing is.

    Args:
        encoder: smp's name, or `tu-<timm name>`.
        weights: as for `weights_file`.
    """
    try:
        if is_path(weights):
            weights_file(encoder, weights)
            return []
        repo, revision = _repository(encoder, weights)
    except ValueError as error:
        return [str(error)]
    if any(isinstance(huggingface_hub.try_to_load_from_cache(repo, n, revision=revision), str) for n in HUB_FILES):
        return []
    problem = _unreachable()
    return [_cannot_fetch(encoder, weights, repo, problem)] if problem else []


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file: safetensors, or a torch file that holds nothing but tensors.

    A torch file is a pickle, which can name any code to run: `weights_only` refuses all but tensors.

    Raises:
        ValueError: the file cannot be read as weights.
    """
    try:
        return timm.models.load_state_dict(str(path), use_ema=False, weights_only=True)
    except Exception as error:
        # safetensors, pickle and zip each have their own exceptions for a broken file.
        raise ValueError(f"encoder_weights: {str(path)!r} cannot be read as weights: {error}") from error


def load_encoder(encoder: nn.Module, state: dict[str, Tensor], path: Path, *, timm: bool) -> None:
    """Load a state with upstream key names into an encoder; only its classifier head is left out.

    Args:
        encoder: of an smp model.
        state: from `read_state`.
        path: where it is from, for the message.
        timm: the encoder is timm's and has loaded the state already. All is checked again, because some of timm's
            models take what happens to fit.

    Raises:
        ValueError: keys are missing, or left over, or of another shape.
    """
    if timm:
        # timm flattens names like `stages.0` to `stages_0` in its feature extractors.
        there = {key.replace("_", ".") for key in state}
        own = [name for name, _ in encoder.get_submodule("model").named_parameters()]
        missing = [name for name in own if name.replace("_", ".") not in there]
        problem = f"{len(missing)} parameters are not in it, {missing[0]!r} the first" if missing else ""
    else:
        try:
            encoder.load_state_dict(state)
            problem = ""
        except RuntimeError as error:
            problem = _shorten(error)
    if problem:
        raise ValueError(f"encoder_weights: {str(path)!r} does not fit the encoder: {problem}")


def _repository(encoder: str, weights: str) -> tuple[str, str | None]:
    """The hub repository and revision of an encoder's named weights. Raises ValueError."""
    if encoder.startswith("tu-"):
        config = timm.get_pretrained_cfg(encoder[3:])
        if weights != "imagenet" or config is None or not config.hf_hub_id:
            raise ValueError(
                f"encoder_weights: {weights!r} is not available for {encoder!r}; "
                f"{'use imagenet, ' if config and config.hf_hub_id else 'use '}null, or the path of a weights file"
            )
        repo, _, revision = config.hf_hub_id.partition("@")
        return repo, revision or None
    settings = smp.encoders.encoders[encoder]["pretrained_settings"]
    if weights not in settings:
        raise ValueError(
            f"encoder_weights: {weights!r} is not available for {encoder!r}; use one of {sorted(settings)}, null, "
            "or the path of a weights file"
        )
    return settings[weights]["repo_id"], settings[weights]["revision"]


def _unreachable() -> str:
    """Why the hub cannot be asked, or an empty string if it answers."""
    if hub.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    request = urllib.request.Request(hub.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=REACH_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return ""  # It answers, if only to say that it does not like the question.
    except OSError as error:
        return f"{hub.ENDPOINT} cannot be reached: {getattr(error, 'reason', error)}"
    return ""


def _fetch(encoder: str, weights: str, repo: str, revision: str | None) -> Path:
    """Download the first weights file that the repository has. Raises ValueError."""
    problem = ""
    for name in HUB_FILES:
        try:
            return Path(huggingface_hub.hf_hub_download(repo, name, revision=revision))
        except huggingface_hub.errors.EntryNotFoundError:
            problem = f"the repository has none of {', '.join(HUB_FILES)}"
        except (OSError, huggingface_hub.errors.HfHubHTTPError) as error:
            problem = str(error).splitlines()[0]
            break
    raise ValueError(_cannot_fetch(encoder, weights, repo, problem))


def _cannot_fetch(encoder: str, weights: str, repo: str, problem: str) -> str:
    return (
        f"encoder_weights: the {weights!r} weights of {encoder!r} ({repo}) are not in the cache "
        f"{hub.HF_HUB_CACHE} and cannot be fetched ({problem}); set encoder_weights to null or to the path of a "
        f"weights file, or fill the cache on a machine with network (hf download {repo}) and copy it here"
    )


def _shorten(error: Exception) -> str:
    """The first few complaints of torch's load_state_dict, on one line."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:300] + " ..."
