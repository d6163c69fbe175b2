"""Renders training scenes once, in parallel, into memory-mapped arrays that all epochs read.

Rendering costs about as much as a training step, so the pool pays for itself in the second epoch. Truths are not
stored: they are drawn again from the seeds, thousands a second.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.demo_world.render import render
from pipeline.demo_world.scene import SIDE, Scene, sample
from pipeline.demo_world.vocabulary import COLORLESS_STYLES, COLORS, SHAPES
from pipeline.processes import SpawnContext
from pipeline.progress import Progress

FIRST_SEED = 1 << 32  # far from the seeds that the demo's own training folder uses
PATCH = 12
GRID = SIDE // PATCH
_CHUNK = 500
_COVERED = 0.25  # share of a patch that an object must fill to be the patch's label


def patch_labels(scene: Scene) -> np.ndarray:
    """Shape and colour that fill each patch: uint8 (2, GRID, GRID); 0 is none, k + 1 the k-th word, 255 no label."""
    labels = np.zeros((2, GRID, GRID), np.uint8)
    best = np.full((GRID, GRID), _COVERED * PATCH * PATCH)
    colors = list(COLORS)
    for thing, mask in zip(scene.things, scene.visible_masks(), strict=True):
        covered = mask.reshape(GRID, PATCH, GRID, PATCH).sum((1, 3))
        wins = covered > best
        best = np.where(wins, covered, best)
        labels[0][wins] = SHAPES.index(thing.shape) + 1
        labels[1][wins] = 255 if scene.style in COLORLESS_STYLES else colors.index(thing.color) + 1
    return labels


def _render_chunk(job: tuple[str, int, int]) -> int:
    folder, start, stop = job
    images = np.load(Path(folder) / "images.npy", mmap_mode="r+")
    patches = np.load(Path(folder) / "patches.npy", mmap_mode="r+")
    for row in range(start, stop):
        scene = sample(FIRST_SEED + row)
        images[row] = np.asarray(render(scene))
        patches[row] = patch_labels(scene)
    return stop - start


def build_pool(folder: Path, scenes: int, processes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (scenes, SIDE, SIDE, 3) and patch labels uint8 (scenes, 2, GRID, GRID), rendered where missing."""
    done = folder / f"done-{scenes}"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for other in folder.glob("done-*"):  # whose scenes are written over
            other.unlink()
        shapes = {"images": (scenes, SIDE, SIDE, 3), "patches": (scenes, 2, GRID, GRID)}
        for name, shape in shapes.items():
            np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.uint8, shape=shape)
        jobs = [(str(folder), start, min(start + _CHUNK, scenes)) for start in range(0, scenes, _CHUNK)]
        progress = Progress("rendering", scenes, "scenes")
        with SpawnContext().Pool(processes) as workers:
            for count in workers.imap_unordered(_render_chunk, jobs):
                progress.update(count)
        progress.close()
        done.touch()
    return np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "patches.npy", mmap_mode="r")
