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
    "curate": "clean, reject, diversify; make the training bundles",
    "train": "train the multi-branch CLIP",
    "evaluate": "measure it and write the report",
}
USER_ERROR, GIVEN_UP = 2, 3
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
        description="Many captions per image, a multi-branch CLIP trained on them, measured.",
        epilog="Stages: ingest → caption → curate → train → evaluate. See README.md.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    init = commands.add_parser("init", help="write a first configuration, with comments")
    init.add_argument("kind", choices=("photos", "tars", "urls"), help="a folder of images, tars, or a table of links")
    init.add_argument("path", metavar="PATH", help="the folder, the tars (one, a folder or a glob), or the table")
    init.add_argument(
        "--config", default="holism.yaml", metavar="FILE", help="file that it is written to (default: %(default)s)"
    )
    init.set_defaults(handler=_init)
    run = _command(commands, "run", "run all stages that have work to do", _run)
    _add_stages(run)
    _add_run_options(run)
    for name, text in STAGE_HELP.items():
        stage = _command(commands, name, text, _run)
        stage.set_defaults(stages=name)
        _add_run_options(stage)
        if name == "evaluate":
            _add_measured(stage)

    _add_stages(_command(commands, "status", "say what is done, what is stale and why", _status))
    _add_stages(_command(commands, "plan", "say what a run would do and why", _plan))
    _command(commands, "verify", "read all results and compare them with what is on record", _verify)
    _add_servers_and_export(commands)
    _add_diversity(commands)
    compare = commands.add_parser("compare", help="put evaluated models of several configurations on one page")
    compare.add_argument("configs", nargs="+", metavar="CONFIG", help="configuration files, each evaluated before")
    compare.add_argument(
        "--output", metavar="FILE", help="file that the page is written to (default: in the first workspace)"
    )
    compare.set_defaults(handler=_compare)
    settings = commands.add_parser("settings", help="say what every key of a configuration means")
    settings.add_argument("section", nargs="?", metavar="SECTION", help="only these, such as caption.engine")
    settings.add_argument("--markdown", action="store_true", help="print the page docs/settings.md")
    settings.set_defaults(handler=_settings)
    doctor = commands.add_parser("doctor", help="check what is installed and what this machine offers")
    doctor.set_defaults(handler=_doctor)
    return parser


def _add_servers_and_export(commands: argparse._SubParsersAction) -> None:
    browse = _command(commands, "browse", "look at the images and their captions in a browser", _browse)
    browse.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; others than this machine need a token (default: %(default)s)",
    )
    browse.add_argument("--port", type=int, default=8808, help="port to listen on (default: %(default)s)")
    browse.add_argument(
        "--allow-host",
        dest="allowed",
        action="append",
        default=[],
        metavar="NAME",
        help="another host name that the browser may be reached by",
    )
    serve = _command(commands, "serve", "serve the deployments to Prefect, here or where PREFECT_API_URL says", _serve)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serve.add_argument("--port", type=int, default=4200, help="port of a server started here (default: %(default)s)")
    export = _command(
        commands, "export", "write a trained model for others: Holism's form, open_clip's, ONNX", _export
    )
    export.add_argument("--to", required=True, metavar="FOLDER", help="folder that the files are written to")
    export.add_argument("--run", help="name of the trained run to export (default: the first)")
    export.add_argument(
        "--forms",
        default="holism",
        metavar="A,B",
        help="which forms to write: holism, open_clip, onnx (default: %(default)s)",
    )


def _add_diversity(commands: argparse._SubParsersAction) -> None:
    diversity = commands.add_parser("diversity", help="report on how different the captions of images are")
    diversity.add_argument("configs", nargs="+", metavar="CONFIG", help="configuration files, compared side by side")
    diversity.add_argument(
        "--output", metavar="FILE", help="file that the page is written to (default: in the first workspace)"
    )
    diversity.add_argument("--plots", metavar="FOLDER", help="folder that the plots are written to as PNG")
    diversity.add_argument(
        "--model", help="model of the sentence embeddings (default: curate.select.embedding; none: leave them out)"
    )
    diversity.set_defaults(handler=_diversity)


def _command(commands: argparse._SubParsersAction, name: str, text: str, handler: object) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.add_argument("config", nargs="?", default="holism.yaml", help="configuration file (default: %(default)s)")
    command.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="A.B=VALUE",
        help="change one setting of the configuration",
    )
    command.set_defaults(handler=handler)
    return command


def _add_stages(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--stages", metavar="A,B", help="stages to look at or run, such as caption,curate (default: all)"
    )


def _add_run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--wait", action="store_true", help="wait while another run holds the workspace")
    command.add_argument(
        "--retry-failed",
        action="store_true",
        help="try rows again that ended in an error, and make damaged files anew",
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
    session = _open(options)
    names = _stages(options, session)
    if not options.retry_failed and not session.needs_work(names):
        print(f"nothing to do: {', '.join(names or STAGE_HELP)} up to date in {session.workspace.root}")
        return 0
    from flows.stages import select as chosen

    with session.hold(wait=options.wait):
        session.check(names)
        given_up = 0
        for stage in chosen(names):
            manifest, fresh = session.run(stage.name, retry_failed=options.retry_failed)
            state = f"done in {duration(manifest.seconds)}" if fresh else "up to date"
            print(f"{stage.name}: {state}: " + "\n  ".join(stage.describe(manifest)), flush=True)
            for warning in manifest.warnings:
                print(f"{stage.name}: warning: {warning}", file=sys.stderr, flush=True)
            given_up += manifest.counts.get("quarantined", 0) if fresh else 0
    return GIVEN_UP if given_up else 0


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
    print(export(Session.open(options.config, options.overrides), options.run, options.to, forms))


def _diversity(options: argparse.Namespace) -> None:
    from flows.diversity import report
    from flows.run import Session

    sessions = [Session.open(config) for config in options.configs]
    for file in report(sessions, options.output, options.model, options.plots):
        print(file)


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


if __name__ == "__main__":
    sys.exit(main())
