"""Decoders of JPEGs for training: pictures per CPU-second, from encoded bytes to a square canvas of 256 pixels.

Pictures of photo size are made by pasting cut-out stamps (Debian's tuxpaint-stamps-default) on each other. All
decoders end with the same resize (Pillow's bicubic), so that what differs is the decoder. `scaled` ones decode at 1/2,
1/4 or 1/8 of the size where that is not below the canvas, which libjpeg does on its coefficients.

    python -m benchmarks.decoding STAMPS      with simplejpeg and opencv-python-headless on PYTHONPATH, where wanted
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline import pictures

SIDE = 256  # of the canvas
SIZES = (256, 512, 1024)
PICTURES, SECONDS = 24, 2.0
Decoder = Callable[[bytes], np.ndarray]


def make(stamps: list[Path], side: int, seed: int) -> bytes:
    """A JPEG of some stamps on a background of another, about as large as photos of this size are."""
    rng = np.random.default_rng([side, seed])
    chosen = [Image.open(stamps[place]).convert("RGBA") for place in rng.choice(len(stamps), 9, replace=False)]
    canvas = chosen[0].resize((side, side)).convert("RGB")
    for stamp in chosen[1:]:
        scale = side * rng.uniform(0.3, 0.8) / max(stamp.size)
        stamp = stamp.resize((max(1, int(stamp.width * scale)), max(1, int(stamp.height * scale))))
        place = tuple(int(rng.integers(-side // 8, side)) for _ in range(2))
        canvas.paste(stamp, place, stamp)
    noisy = np.asarray(canvas) + rng.normal(0, 4, (side, side, 3))  # a camera's
    buffer = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def resized(picture: Image.Image) -> np.ndarray:
    """On the canvas."""
    if picture.size != (SIDE, SIDE):
        picture = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(picture)


def decoders() -> dict[str, Decoder]:
    """Those that can be imported here."""
    found: dict[str, Decoder] = {
        "Pillow, whole": lambda data: resized(pictures.decode(data)[0]),
        "Pillow, scaled (pipeline.pictures)": lambda data: resized(pictures.decode(data, lambda *_: (SIDE, SIDE))[0]),
    }
    for add in (_simplejpeg, _torchvision, _opencv):
        try:
            found |= add()
        except ImportError as error:
            print(f"left out: {error}")
    return found


def _simplejpeg() -> dict[str, Decoder]:
    library: Any = import_module("simplejpeg")

    def scaled(data: bytes) -> np.ndarray:
        # min_factor 1 and both minima: the coarsest scale that is not below the canvas
        return resized(
            Image.fromarray(library.decode_jpeg(data, "RGB", min_height=SIDE, min_width=SIDE, min_factor=1))
        )

    return {
        "simplejpeg, whole": lambda data: resized(Image.fromarray(library.decode_jpeg(data, "RGB"))),
        "simplejpeg, scaled": scaled,
    }


def _torchvision() -> dict[str, Decoder]:
    torch, library = import_module("torch"), import_module("torchvision.io")

    def whole(data: bytes) -> np.ndarray:
        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return resized(Image.fromarray(library.decode_jpeg(encoded).permute(1, 2, 0).numpy()))

    return {"torchvision.io, whole": whole}


def _opencv() -> dict[str, Decoder]:
    library: Any = import_module("cv2")
    library.setNumThreads(1)
    reduced = {1: library.IMREAD_COLOR, 2: library.IMREAD_REDUCED_COLOR_2, 4: library.IMREAD_REDUCED_COLOR_4}

    def at(data: bytes, scale: int) -> np.ndarray:
        found = library.imdecode(np.frombuffer(data, np.uint8), reduced[scale])
        return resized(Image.fromarray(library.cvtColor(found, library.COLOR_BGR2RGB)))

    def scaled(data: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(data)) as opened:  # the header alone; opencv does not tell the size
            return at(data, max(scale for scale in reduced if scale * SIDE <= min(opened.size)))

    return {"opencv, whole": lambda data: at(data, 1), "opencv, scaled": scaled}


def rate(decode: Decoder, data: list[bytes]) -> float:
    """Pictures per CPU-second of this process."""
    decode(data[0])
    began, count = time.process_time(), 0
    while time.process_time() - began < SECONDS:
        decode(data[count % len(data)])
        count += 1
    return count / (time.process_time() - began)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stamps", type=Path, help="folder with png files")
    stamps = sorted(parser.parse_args().stamps.rglob("*.png"))
    if torch := import_module("torch"):
        torch.set_num_threads(1)
    data = {side: [make(stamps, side, seed) for seed in range(PICTURES)] for side in SIZES}
    sizes = ", ".join(f"{side} px {sum(map(len, data[side])) // len(data[side]) // 1000} kB" for side in SIZES)
    print(f"{PICTURES} pictures a size: {sizes} on the mean\n")
    print(f"| decoder | {' | '.join(f'{side} px' for side in SIZES)} | differs from Pillow, scaled: mean, most |")
    print(f"| --- | {'---: | ' * len(SIZES)}---: |")
    found = decoders()
    ours = found["Pillow, scaled (pipeline.pictures)"]
    for name, decode in found.items():
        rates = " | ".join(f"{rate(decode, data[side]):.0f}" for side in SIZES)
        apart = np.stack([np.abs(decode(one).astype(int) - ours(one)) for one in data[1024]])
        print(f"| {name} | {rates} | {apart.mean():.2f}, {apart.max()} |", flush=True)


if __name__ == "__main__":
    main()
