"""What each command of `holism` does: each takes the parsed arguments and returns the exit status, if that is not 0.

Heavy libraries are imported where they are used, so that what has nothing to do ends at once.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from pipeline.errors import HolismError
from pipeline.progress import duration

if TYPE_CHECKING:
    from flows.run import Session

USER_ERROR, QUARANTINED = 2, 3


def init(options: argparse.Namespace) -> None:
    """Write a first configuration."""
    from flows.init import init

    print(init(options.kind, options.path, options.config))


def run(options: argparse.Namespace) -> int:
    """Run stages; the status says whether images were quarantined."""
    if options.smoke:
        return _smoke(options)
    return _run_stages(_open(options), options)


def _smoke(options: argparse.Namespace) -> int:
    from flows.smoke import smoke

    began = time.monotonic()
    with smoke(options.config, options.overrides) as session:
        status = _run_stages(session, options)
    took = duration(time.monotonic() - began)
    print(f"smoke: {options.config} runs; it took {took}. What it made is removed again, the report too", flush=True)
    return status


def _run_stages(session: Session, options: argparse.Namespace) -> int:
    from flows.stages import select as chosen

    names = _stages(options, session)
    if not options.retry_failed and not session.needs_work(names):
        up_to_date = ", ".join(stage.name for stage in chosen(names))
        print(f"nothing to do: {up_to_date} up to date in {session.workspace.root}")
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


def status(options: argparse.Namespace) -> int:
    """What is done, what is stale and why."""
    from flows.run import Session
    from flows.status import status

    session = Session.open(options.config, options.overrides)
    print(status(session, _stages(options, session)), flush=True)
    return _say_problems(session, options)


def plan(options: argparse.Namespace) -> int:
    """What a run would do and why."""
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


def verify(options: argparse.Namespace) -> None:
    """Compare all results with what is on record."""
    from flows.run import Session
    from flows.verify import verify

    print(verify(Session.open(options.config, options.overrides)))


def browse(options: argparse.Namespace) -> None:
    """Serve the caption browser."""
    from flows.browse import browse
    from flows.run import Session

    browse(Session.open(options.config, options.overrides), options.host, options.port, options.allowed)


def serve(options: argparse.Namespace) -> None:
    """Serve the deployments."""
    from flows.run import Session
    from flows.serve import serve

    serve(Session.open(options.config, options.overrides), options.host, options.port)


def export(options: argparse.Namespace) -> None:
    """Write a trained model for others."""
    from flows.export import export
    from flows.run import Session

    forms = [form.strip() for form in options.forms.split(",")]
    session = Session.open(options.config, options.overrides)
    print(export(session, options.run, options.to, forms, options.weights))


def diversity(options: argparse.Namespace) -> None:
    """Write the page on diversity."""
    from flows.diversity import report
    from flows.run import Session

    sessions = [Session.open(config) for config in options.configs]
    for file in report(sessions, options.output, options.model, options.plots):
        print(file)


def benchmark(options: argparse.Namespace) -> None:
    """List the suites, or say what one holds, or write it."""
    from flows import benchmark

    if options.suite is None:
        print(benchmark.listed())
        return
    at = benchmark.at(options.suite, options.root, options.images, options.name)
    print(benchmark.write(at, options.to))


def fetch(options: argparse.Namespace) -> int:
    """Fetch suites, each by itself."""
    from flows.benchmark import fetched

    failed = 0
    for name in options.suites:
        try:
            print("\n".join(fetched([name])), flush=True)
        except HolismError as error:  # of one; the others are fetched
            print(f"holism: error: the suite {name} is skipped: {error}", file=sys.stderr, flush=True)
            failed += 1
    return USER_ERROR if failed else 0


def compare(options: argparse.Namespace) -> None:
    """Write a page of evaluated models of several configurations."""
    from flows.compare import compare
    from flows.run import Session

    print(compare([Session.open(config) for config in options.configs], options.output))


def settings(options: argparse.Namespace) -> None:
    """Say what keys mean."""
    from flows.settings import markdown, settings

    print(markdown() if options.markdown else settings(options.section))


def doctor(_: argparse.Namespace) -> int:
    """Check this machine."""
    from flows.doctor import doctor

    report, healthy = doctor()
    print(report)
    return 0 if healthy else 1


def doctor_data(options: argparse.Namespace) -> None:
    """Measure what training reads."""
    from flows.data_doctor import data_doctor
    from flows.run import Session

    print(data_doctor(Session.open(options.config, options.overrides), options.run))
