"""How threads of torch should wait on a CPU: training alone, and beside another process that wants the same cores.

    python -m benchmarks.waiting_threads --rounds 3

OpenMP's threads may spin while they wait for each other, which is quick as long as each has a core. Beside other work
a thread that spins takes the core from the one it waits for. Each setting trains the demo's towers on made-up batches
of 64 for some seconds, in a process of its own: alone, and beside a process that multiplies matrices on as many
threads.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

SECONDS = 4.0
IMAGES = 64
SETTINGS: dict[str, dict[str, str]] = {
    "default": {},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "GOMP_SPINCOUNT=0": {"GOMP_SPINCOUNT": "0"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "KMP_BLOCKTIME=0": {"KMP_BLOCKTIME": "0"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
TOWERS = {
    "embed_dim": 128,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 96, "patch_size": 12, "width": 160, "head_width": 32, "layers": 6},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 1},
}


def train() -> None:
    """Prints the images of a second."""
    import torch

    from benchmarks.micro_batches import made_up_batch
    from pipeline.config import build
    from training.checkpoint import new_model
    from training.config import RunConfig
    from training.gradients import Gradients
    from training.optim import make_optimizer
    from training.ranks import Ranks

    device = torch.device("cpu")
    recipe = {"model": TOWERS, "slots": ["alt_text", "detail", "phrase"], "global_batch": IMAGES, "precision": "fp32"}
    config = build(RunConfig, recipe)
    model = new_model(config).train()
    gradients, optimizer = Gradients(model, config, Ranks(0, 1, device)), make_optimizer(model, config)
    batch, steps, began = made_up_batch(IMAGES, 3, 96, device), 0, 0.0
    while not began or time.perf_counter() - began < SECONDS:
        optimizer.zero_grad(set_to_none=True)
        gradients(batch)
        optimizer.step()
        steps += bool(began)
        began = began or time.perf_counter()
    print(steps * IMAGES / (time.perf_counter() - began))


def multiply() -> None:
    """Until it is ended."""
    import torch

    matrix = torch.rand(512, 512)
    print("ready", flush=True)
    while True:
        matrix @ matrix


def measure(setting: dict[str, str], beside: bool) -> float:
    command = [sys.executable, "-m", "benchmarks.waiting_threads", "--do"]
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_", "KMP_"))}
    other = subprocess.Popen([*command, "multiply"], env=plain, stdout=subprocess.PIPE) if beside else None
    try:
        if other is not None and other.stdout is not None:
            other.stdout.readline()
        done = subprocess.run(
            [*command, "train"], env={**plain, **setting}, capture_output=True, text=True, check=True
        )
        return float(done.stdout)
    finally:
        if other is not None:
            other.kill()
            other.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--do", choices=["train", "multiply"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.do:
        {"train": train, "multiply": multiply}[options.do]()
        return
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in SETTINGS}
    for _ in range(options.rounds):  # settings in turn, so that what else the machine does hits all alike
        for name, setting in SETTINGS.items():
            for beside in (False, True):
                found[name][beside].append(measure(setting, beside))
    print("| setting | alone, images/s | beside another process |\n| --- | ---: | ---: |")
    for name, rates in found.items():
        alone, beside_other = (f"{statistics.median(of):.0f} ({min(of):.0f} to {max(of):.0f})" for of in rates)
        print(f"| {name} | {alone} | {beside_other} |", flush=True)


if __name__ == "__main__":
    main()
