"""Where the weights of a warm start lie, and their identity. Light: a look whether there is work imports no torch."""

from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.identity import digest

PRETRAINED = "open_clip:"  # followed by one of open_clip's tags, such as laion2b_s34b_b79k
IN_FOLDERS = ("model.safetensors", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def pretrained_tag(source: str | Path) -> str | None:
    """The tag in open_clip:TAG, None where `train.warm_start` is a path."""
    text = str(source)
    return text.removeprefix(PRETRAINED) if text.startswith(PRETRAINED) else None


def weights_name(source: str | None) -> str | None:
    """How a model's files call what it started from: without the place it has on this machine."""
    if source is None or pretrained_tag(source):
        return source
    return Path(source).name


def weights_file(path: str | Path) -> Path:
    """The file that `train.warm_start` names: itself, or the weights in a folder."""
    place = Path(path)
    candidates = [place / name for name in IN_FOLDERS] if place.is_dir() else [place]
    for file in candidates:
        if file.is_file():
            return file
    raise ConfigError(
        f"train.warm_start: no checkpoint at {candidates[0]}; name a checkpoint file, a folder that holds one, or "
        f"{PRETRAINED}TAG for weights that open_clip knows"
    )


def weights_digest(source: str | Path) -> str:
    """Identity of the weights, so that a run from other weights under the same name is another run.

    A tag of open_clip's stands for weights that do not change, so it is its own identity and need not be there yet.
    """
    if pretrained_tag(source):
        return digest(str(source))
    return digest(weights_file(source).read_bytes())
