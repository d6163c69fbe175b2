"""Where the weights of a warm start lie, and their identity. Light: a look whether there is work imports no torch."""

from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.identity import digest


def weights_file(path: str | Path) -> Path:
    """The file that `train.warm_start` names: itself, or the safetensors file of a folder."""
    place = Path(path)
    file = place / "model.safetensors" if place.is_dir() else place
    if not file.is_file():
        raise ConfigError(
            f"train.warm_start: no checkpoint at {file}; name a checkpoint file or a folder that holds one"
        )
    return file


def weights_digest(path: str | Path) -> str:
    """Identity of the weights, so that a run from other weights under the same name is another run."""
    return digest(weights_file(path).read_bytes())
