"""Whether a cluster has room for what is to start together: Ray itself would wait for ever without a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.errors import ScheduleError


def require_room(bundles: Sequence[Mapping[str, float]], what: str, advice: str, seconds: float) -> None:
    """Ask for all of these bundles of resources, which are alike, at once, and give them back.

    Raises ScheduleError, with the `advice`, if there is no room for them within so many seconds.
    """
    import ray

    there = ray.cluster_resources()
    if not has_room(bundles, seconds):
        bundle = bundles[0]
        wanted = " and ".join(f"{amount:g} {name}" for name, amount in bundle.items())
        has = ", ".join(f"{there.get(name, 0):g} {name}" for name in bundle)
        raise ScheduleError(
            f"{len(bundles)} {what} with {wanted} each found no room within {seconds:g} s: the Ray cluster "
            f"has {has}, some of it perhaps in use; {advice}"
        )


def has_room(bundles: Sequence[Mapping[str, float]], seconds: float) -> bool:
    """Whether all of these bundles of resources can be had at once within so many seconds."""
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([dict(bundle) for bundle in bundles])
    try:
        return bool(group.wait(seconds))
    finally:
        remove_placement_group(group)
