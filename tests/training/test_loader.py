"""Loader workers: clean processes that survive whatever their parent holds, and leave no trace when it ends."""

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_sharer
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from pipeline.errors import ScheduleError, StoreError
from tests.training.test_batches import assert_equal, make
from training.loader import loader

Recipe = Callable[..., dict[str, Any]]

# Trains as a script does that knows nothing of processes: no guard, threads and locks about.
SCRIPT = """
import json, sys, threading
from pathlib import Path
import torch
from tests.training.test_trainer import run
torch.set_num_threads(1)
print("started", flush=True)
threading.Thread(target=threading.Event().wait, daemon=True).start()
worker = threading.Thread(target=lambda: print(run(Path(sys.argv[1]), json.loads(sys.argv[2])).steps, flush=True))
worker.start()
worker.join()
"""

INTERRUPTED = """
import json, sys
from pathlib import Path
from tests.training.test_trainer import run
try:
    run(Path(sys.argv[1]), json.loads(sys.argv[2]))
except KeyboardInterrupt:
    print("stopped")
"""

# Dies while it fetches a tensor of its worker. The worker sees the connection end half a second before the process.
FETCHING = """
import os, signal, socket, time
from torch.utils.data import DataLoader
from tests.training.test_loader import Addresses
from training.processes import CleanContext, end_with_parent, start_server
start_server()
made = iter(DataLoader(Addresses(), batch_size=None, num_workers=1, multiprocessing_context=CleanContext(),
                       worker_init_fn=end_with_parent))
connection = socket.socket(socket.AF_UNIX)
connection.connect(next(made))
connection.recv(4)
connection.close()
time.sleep(0.5)
print("dies", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


class Addresses(Dataset):
    """Each item is the address at which its worker hands out tensors."""

    def __len__(self) -> int:
        return 100

    def __getitem__(self, _: int) -> str:
        return resource_sharer.DupFd(0)._id[0]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts programs in a session of their own, which is killed at the end."""
    started = []

    def start(*command: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, env=environment,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        for pid in session_of(process):
            os.kill(pid, signal.SIGKILL)


def session_of(process: subprocess.Popen[str]) -> list[int]:
    """The living processes of a program."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            state, _, _, session = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()[:4]
        except OSError:
            continue
        if int(session) == process.pid and state != "Z":
            found.append(int(entry))
    return found


def test_a_thread_of_any_program_trains_with_workers(
    tmp_path: Path, recipe: Recipe, processes: Callable[..., subprocess.Popen[str]]
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    process = processes(str(tmp_path / "script.py"), str(tmp_path), json.dumps(recipe(epochs=1, workers=2)))
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert (output.count("started"), output.splitlines()[-1]) == (1, "3")
    assert session_of(process) == []


@pytest.mark.slow
@pytest.mark.parametrize("sent", ["ctrl-c", "kill"])
def test_the_end_of_a_run_is_that_of_its_workers_without_a_word_of_torchs(
    tmp_path: Path, recipe: Recipe, processes: Callable[..., subprocess.Popen[str]], sent: str
) -> None:
    """A terminal sends Ctrl-C to all processes; of a kill the workers learn by themselves."""
    process = processes("-c", INTERRUPTED, str(tmp_path), json.dumps(recipe(epochs=10**6, workers=2, log_every=1)))
    metrics, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    if sent == "ctrl-c":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.kill()
    output = process.communicate(timeout=120)[0]  # ends with the last process that has the pipe
    assert sent == "kill" or output.splitlines()[-1] == "stopped"
    assert "Traceback" not in output
    assert session_of(process) == []


def test_a_worker_whose_run_dies_while_it_fetches_a_tensor_says_nothing(
    processes: Callable[..., subprocess.Popen[str]],
) -> None:
    process = processes("-c", FETCHING)
    assert process.communicate(timeout=120)[0].splitlines()[0] == "dies"
    assert session_of(process) == []


def test_a_shard_that_ends_early_is_one_sentence_whoever_reads_it(tmp_path: Path, recipe: Recipe) -> None:
    batches = make(tmp_path, recipe())
    tar = tmp_path / "ingest" / "b.tar"
    tar.write_bytes(tar.read_bytes()[:2048])
    said = []
    for workers in (0, 1):
        with pytest.raises(StoreError, match="it was cut or replaced") as raised:
            list(loader(batches, 0, workers=workers, pin_memory=False))
        said.append(str(raised.value))
    assert said[0] == said[1]


@pytest.mark.parametrize("workers", [0, 1])
def test_other_bytes_than_the_pictures_end_the_run(tmp_path: Path, recipe: Recipe, workers: int) -> None:
    """They are no pictures that do not decode: with a tar of zeros a run would go to its end on nothing."""
    batches = make(tmp_path, recipe())
    tar = tmp_path / "ingest" / "b.tar"
    tar.write_bytes(bytes(tar.stat().st_size))
    with pytest.raises(StoreError, match="is not the picture that was ingested"):
        list(loader(batches, 0, workers=workers, pin_memory=False))


def test_a_worker_that_dies_is_one_sentence(tmp_path: Path, recipe: Recipe) -> None:
    before = set(multiprocessing.active_children())
    made = loader(make(tmp_path, recipe(epochs=1000)), 0, workers=1, pin_memory=False)
    next(made)
    (worker,) = set(multiprocessing.active_children()) - before
    worker.kill()
    with pytest.raises(ScheduleError, match=r"ended by SIGKILL.*lower train.workers \(found 1\)"):
        for _ in made:
            pass


def test_workers_map_the_index_and_copy_none(tmp_path: Path, recipe: Recipe) -> None:
    batches = make(tmp_path, recipe())
    sent = pickle.dumps(batches)
    assert len(sent) < 20_000  # what they are told beside: the recipe and the shards' places
    again = pickle.loads(sent)
    for column in (again.bundles.row_S, again.bundles.pieces[0].token):
        assert not column.flags.writeable  # of the mapped file
    for step in range(9):
        assert_equal(again[step], batches[step])


def test_no_room_for_a_batch_is_named(tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.loader import _InWorker

    def full(*_: Any) -> Any:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    batches = make(tmp_path, recipe())
    found = _InWorker(batches)[batches.share(0)]
    assert isinstance(found, ScheduleError)
    assert "docker run --shm-size" in str(found)
