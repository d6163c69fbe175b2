"""One of the ranks that `training.launch` starts: python -m training.rank FOLDER."""

import os
import pickle
import sys
import threading
import time
from pathlib import Path

from pipeline.errors import HolismError
from pipeline.faults import outside_faults
from pipeline.stops import end_children, stoppable
from training.launch import ERROR, OUTCOME, RUN
from training.stage import run_train

USER_ERROR = 2


def main(folder: Path) -> int:
    """Runs the stage as this rank; returns the exit status."""
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), name="parent", daemon=True).start()
    rank = int(os.environ["RANK"])
    with stoppable() as stop:
        try:
            with outside_faults():
                outcome = run_train(pickle.loads((folder / RUN).read_bytes()))
            if rank == 0:
                (folder / OUTCOME).write_bytes(pickle.dumps(outcome))
        except HolismError as error:
            if stop.signal is None:
                (folder / f"{ERROR}{rank}").write_bytes(pickle.dumps(error))
                return USER_ERROR
        except BaseException:
            if stop.signal is None:
                raise
        else:
            return 0
        stop.settle()
        end_children()
        return stop.status


def _end_with_parent(parent: int) -> None:
    """A rank is in a session of its own and would not notice that the process that started it was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
