"""A trained model in the forms others read, in one folder.

    holism      config.json, model.safetensors: `training.load(folder)`
    open_clip   open_clip_config.json, open_clip_model.safetensors: `open_clip.create_model_and_transforms`; of models
                with one branch only, since open_clip's towers know no others
    onnx        image.onnx, text.onnx: both towers, normalised, any number of images or texts at a time

and a README.md, the model card. export.json records what was written. ONNX files are run and compared with the model
before they are put in place.
"""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
import open_clip
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ConfigError, InputError
from pipeline.identity import digest
from pipeline.storage import Location
from training.checkpoint import CONFIG_FILE, WEIGHTS_FILE, load
from training.model import HolisticCLIP
from training.model_card import Facts, model_card
from training.onnx_model import ABOUT, IMAGE_FILE, TEXT_FILE
from training.towers import TOWER_KEYS

FORMS = ("holism", "open_clip", "onnx")
CARD, RECORD = "README.md", "export.json"
FILES = (CONFIG_FILE, WEIGHTS_FILE, "open_clip_config.json", "open_clip_model.safetensors", IMAGE_FILE, TEXT_FILE)
TOLERANCE = 1e-4  # of ONNX outputs, which are unit vectors
MOST_BYTES = 2**31  # of a protocol buffer


def export(
    source: str | Location, target: str | Location, forms: Sequence[str] = ("holism",), facts: Facts | None = None
) -> list[str]:
    """Writes the model of a finished run's folder to `target`; returns the names of the files.

    `facts` go into the model card: where the model comes from and what it reaches. Raises ConfigError for a form that
    is unknown or that this model does not fit, or a folder with files of others or forms of another export,
    InputError where a written form does not give the model's outputs.
    """
    if unknown := [form for form in forms if form not in FORMS] or ([] if forms else ["none"]):
        raise ConfigError(f"found form {unknown[0]!r}, expected some of {', '.join(FORMS)}")
    folder = Location.of(source)
    model, _, _ = load(folder)
    description = json.loads((folder / CONFIG_FILE).read())
    files: dict[str, bytes] = {}
    if "holism" in forms:
        files |= {name: (folder / name).read() for name in (CONFIG_FILE, WEIGHTS_FILE)}
    if "open_clip" in forms:
        files |= open_clip_files(model, description["preprocess"])
    if "onnx" in forms:
        files |= onnx_files(model, description["preprocess"])
    files[CARD] = model_card(model, description, sorted(files), facts or Facts()).encode()
    _write(Location.of(target), files)
    return sorted(files)


def _write(folder: Location, files: Mapping[str, bytes]) -> None:
    """Writes the files and, in RECORD, which they are: what is not on record there is somebody else's."""
    written = _written(folder)
    if other := [name for name in FILES if name not in files and (folder / name).exists()]:
        raise ConfigError(
            f"the folder {folder} holds {', '.join(other)} of another export, which would pass for this model's; name "
            "another folder or remove them"
        )
    for name, data in files.items():
        if (folder / name).exists() and digest((folder / name).read()) not in [*written.get(name, ()), digest(data)]:
            raise ConfigError(
                f"{folder / name} is there already and was not written by an export, or was changed since; name "
                "another folder or move it away"
            )
    # Old and new first, so that whatever a kill leaves is on record.
    both = {name: sorted({*written.get(name, ()), digest(data)}) for name, data in files.items()}
    for record in (both, {name: [digest(data)] for name, data in files.items()}):
        (folder / RECORD).write(json.dumps({"files": record}, indent=1).encode())
        for name, data in files.items() if record is both else ():
            (folder / name).write(data)


def _written(folder: Location) -> dict[str, list[str]]:
    """Digests of what exports wrote to a folder, by name."""
    try:
        found: dict[str, list[str]] = json.loads((folder / RECORD).read())["files"]
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder / RECORD} is no record of an export ({error}); name another folder") from error
    return found


def open_clip_files(model: HolisticCLIP, preprocess: Mapping[str, Any]) -> dict[str, bytes]:
    """The files that `open_clip.create_model_and_transforms("local-dir:FOLDER")` reads.

    Raises ConfigError for a model of several branches.
    """
    if len(model.slots) > 1:
        raise ConfigError(
            f"the model has {len(model.slots)} branches, but open_clip's towers have one; export it as holism or "
            "onnx, or train with branches: 1"
        )
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    state = {name: value for name, value in state.items() if not name.startswith("text_pooling.")}
    state["visual.class_embedding"] = state["visual.class_embedding"][0]
    towers = {key: model.architecture[key] for key in TOWER_KEYS if key in model.architecture}
    open_clip.CLIP(**towers).load_state_dict(state)
    config = {
        "model_cfg": towers,
        "preprocess_cfg": {key: preprocess[key] for key in ("mean", "std", "interpolation")},
    }
    return {
        "open_clip_config.json": json.dumps(config, indent=1).encode(),
        "open_clip_model.safetensors": safetensors.torch.save(state, metadata={"format": "pt"}),
    }


class _ImageTower(nn.Module):
    """Image to the served vector (B, D) and the branches (B, H, D), all normalised."""

    def __init__(self, model: HolisticCLIP) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        branches_BHD = self.model.encode_branches(image)
        return F.normalize(branches_BHD.mean(dim=1), dim=-1), branches_BHD


class _TextTower(nn.Module):
    """Token ids (T, context length) to normalised vectors (T, D)."""

    def __init__(self, model: HolisticCLIP) -> None:
        super().__init__()
        self.model = model

    def forward(self, text: Tensor) -> tuple[Tensor]:
        return (self.model.encode_text(text, normalize=True),)


def onnx_files(model: HolisticCLIP, preprocess: Mapping[str, Any]) -> dict[str, bytes]:
    """Both towers as ONNX, run with ONNX Runtime and compared with the model at two batch sizes.

    What `training.load` needs beside them is in the image tower's metadata.
    """
    _require_onnx(model)
    height, width = model.visual.image_size
    device = model.logit_scale.device

    def images(count: int) -> Tensor:
        return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(count)).to(device)

    def texts(count: int) -> Tensor:
        generator = torch.Generator().manual_seed(count)
        text_TL = torch.randint(1, model.vocab_size - 1, (count, model.context_length), generator=generator)
        text_TL[:, -1] = model.vocab_size - 1  # the end token has the highest id
        return text_TL.to(device)

    about = {ABOUT: json.dumps({"branches": list(model.slots), "preprocess": dict(preprocess)})}
    return {
        IMAGE_FILE: _onnx(_ImageTower(model), "image", images, ("served", "branches"), about),
        TEXT_FILE: _onnx(_TextTower(model), "text", texts, ("served",), {}),
    }


def _onnx(
    tower: nn.Module,
    name: str,
    examples: Callable[[int], Tensor],
    outputs: Sequence[str],
    metadata: Mapping[str, str],
) -> bytes:
    import onnxruntime

    tower = tower.eval()
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            tower,
            (examples(2),),
            dynamo=True,
            dynamic_shapes={name: {0: torch.export.Dim("batch")}},
            input_names=[name],
            output_names=list(outputs),
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(metadata)
    buffer = io.BytesIO()
    program.save(buffer)
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    for count in (1, 3):
        example = examples(count)
        found = session.run(None, {name: example.cpu().numpy()})
        with torch.inference_mode():
            expected = tower(example)
        apart = max(
            float(np.abs(ours - theirs.cpu().numpy()).max()) for ours, theirs in zip(found, expected, strict=True)
        )
        if not apart < TOLERANCE:
            raise InputError(
                f"the ONNX form of the {name} tower is {apart:.1e} off the model's outputs, expected less than "
                f"{TOLERANCE}; export another form and report the versions of torch and onnxruntime"
            )
    return buffer.getvalue()


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells its authors of operators it leaves as they are, and of torch's own old names."""
    logger = logging.getLogger("onnxscript.optimizer")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def _require_onnx(model: HolisticCLIP) -> None:
    size = sum(parameter.nbytes for parameter in model.parameters())
    if size > MOST_BYTES:
        raise ConfigError(
            f"the model has {size / 2**30:.1f} GiB of weights, but an ONNX file holds at most 2 GiB; export another "
            "form"
        )
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(name) is None:
            raise ConfigError(
                f"exporting to ONNX needs the package {name}, which is not installed; install the extra: "
                "uv pip install -e .[onnx]"
            )
