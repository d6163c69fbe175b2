"""How threads of torch should wait on a CPU: training alone, and beside another process that wants the same cores.

    python -m benchmarks.waiting_threads --rounds 5

OpenMP's threads may spin while they wait for each other, which is quick as long as each has a core. Beside other work
a thread that spins takes the core from the one it waits for. Each setting has a process that trains the demo's towers
on made-up batches. They train for some seconds in turn, so that what else the machine does hits all alike: alone, and
beside a process that multiplies matrices on as many threads as there are cores.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time

SECONDS = 2.0
IMAGES = 8
SETTINGS: dict[str, dict[str, str]] = {
    "none": {},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "KMP_BLOCKTIME=0": {"KMP_BLOCKTIME": "0"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
}
TOWERS = {
    "embed_dim": 128,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 96, "patch_size": 12, "width": 160, "head_width": 32, "layers": 6},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 1},
}


def train() -> None:
    """Trains for some seconds for each line that comes in, and answers with the images of a second."""
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
    batch = made_up_batch(IMAGES, 3, 96, device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        gradients(batch)
        optimizer.step()

    step()
    print("ready", flush=True)
    for _ in sys.stdin:
        step()
        steps, began = 0, time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            step()
            steps += 1
        print(steps * IMAGES / (time.perf_counter() - began), flush=True)


def multiply() -> None:
    """Until it is ended."""
    import torch

    matrix = torch.rand(512, 512)
    print("ready", flush=True)
    while True:
        matrix @ matrix


def started(what: str, setting: dict[str, str]) -> "subprocess.Popen[str]":
    """A process of this file, once it is ready."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_", "KMP_"))}
    command = [sys.executable, "-m", "benchmarks.waiting_threads", "--do", what]
    process = subprocess.Popen(
        command, env={**plain, **setting}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    answer(process)
    return process


def answer(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def measure(process: "subprocess.Popen[str]") -> float:
    assert process.stdin is not None
    print(file=process.stdin, flush=True)
    return float(answer(process))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--do", choices=["train", "multiply"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.do:
        {"train": train, "multiply": multiply}[options.do]()
        return
    other = started("multiply", {})
    other.send_signal(signal.SIGSTOP)
    trainers: dict[str, subprocess.Popen[str]] = {}
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in options.settings}
    try:
        trainers |= {name: started("train", SETTINGS[name]) for name in options.settings}
        for _ in range(options.rounds):
            for is_beside in (False, True):
                other.send_signal(signal.SIGCONT if is_beside else signal.SIGSTOP)
                for name, trainer in trainers.items():
                    found[name][is_beside].append(measure(trainer))
                    print(name, "beside" if is_beside else "alone", round(found[name][is_beside][-1]), file=sys.stderr)
    finally:
        for process in (other, *trainers.values()):
            process.kill()
    print("| setting | alone, images/s: median, most | beside another process: median, most |\n| --- | ---: | ---: |")
    for name, rates in found.items():
        print(f"| {name} | {' | '.join(f'{statistics.median(of):.0f}, {max(of):.0f}' for of in rates)} |")


if __name__ == "__main__":
    main()
