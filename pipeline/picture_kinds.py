"""Which pictures can be read, and how they are told from other files: by content, not by what a name ends in.

Pillow reads most kinds itself. HEIC needs a plug-in (the extra `heif`), which is registered with Pillow wherever
pictures are decoded.
"""

from __future__ import annotations

import re
from functools import cache

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif"),
)
# Never looked into: common neighbours of pictures, and raw files of cameras, which begin as TIFF files do.
OTHER_SUFFIXES = (
    *(".csv", ".tsv", ".jsonl", ".parquet", ".npy", ".npz", ".pt", ".pth", ".safetensors", ".h5"),
    *(".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar", ".cls", ".md", ".yaml"),
    *(".yml", ".toml", ".ini", ".py", ".ipynb", ".sh", ".pdf", ".svg", ".eps", ".psd", ".mp4", ".mov"),
    *(".avi", ".mkv", ".webm", ".mp3", ".wav", ".flac", ".ogg", ".m4a"),
    *(".cr2", ".cr3", ".nef", ".nrw", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw", ".sr2", ".3fr", ".iiq"),
)
HEAD = 64  # bytes of a file that tell what it is
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")  # no format that runs other programs
_SIGNATURES = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "GIF": re.compile(rb"GIF8[79]a"),
    "WEBP": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "BMP": re.compile(rb"BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0{3}", re.DOTALL),
    "TIFF": re.compile(rb"II[*+]\0|MM\0[*+]"),
    "PPM": re.compile(rb"P[1-6]\s+(#[^\n]*\n\s*)*\d+\s"),
    "AVIF": re.compile(rb".{4}ftyp(avi[fs]|mif1.{4}(.{4})*avif)", re.DOTALL),
    "HEIF": re.compile(rb".{4}ftyp(hei[cfmsx]|hev[cx]|mif1|msf1)", re.DOTALL),
}


@cache
def readable() -> tuple[str, ...]:
    """Pillow's names of the formats that can be read here. Registers the plug-in for HEIC if it is installed."""
    try:
        import pillow_heif
    except ImportError:
        return _FORMATS
    pillow_heif.register_heif_opener()
    return (*_FORMATS, "HEIF")


def kind_of(head: bytes) -> str | None:
    """The format of a picture by its first `HEAD` bytes; None if it is no picture of a known kind."""
    return next((kind for kind, signature in _SIGNATURES.items() if signature.match(head)), None)


def why_unreadable(head: bytes) -> str:
    """Why Pillow knows no format for a file that begins so."""
    kind = kind_of(head)
    if kind == "HEIF" and "HEIF" not in readable():
        how = "install it, the extra heif: uv pip install pillow-heif"
        return f"a HEIC picture, which needs a package that is missing; {how}"
    if kind == "AVIF" and not _has_avif():
        return "an AVIF picture, which this build of Pillow cannot read; install Pillow 11.3 or later from its wheel"
    return f"not an image of a known format ({', '.join(readable())})"


def _has_avif() -> bool:
    from PIL import features

    return bool(features.check("avif"))
