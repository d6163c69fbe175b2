"""How captions end is learnt where nobody knows why they stopped, and nowhere else."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from captioning.curate.corpus.endings import Endings, Habits
from captioning.curate.draft import Draft
from captioning.curate.gadgets.ending import Ending, EndingConfig
from captioning.curate.text_rules.phrases import load_phrases

ENDING = Ending(EndingConfig(), load_phrases(None))


def rows(count: int, finish: str | None, stops: bool) -> list[dict[str, Any]]:
    """Captions about boats by a model that sets full stops, or none."""
    rng = Random(3)
    return [
        {
            "key": f"{number:04}", "caption_id": f"{number:04}", "perspective": "summary", "granularity": "sentence",
            "text": f"A rustic {rng.choice(['boat', 'hut'])} beside a {rng.choice(['pier', 'tree'])}" + "." * stops,
            "finish_reason": finish, "status": "ok",
        }
        for number in range(count)
    ]  # fmt: skip


def habits(told: list[dict[str, Any]], shards: int = 1) -> Habits:
    """What these captions teach, spread over shards."""
    endings = Endings()
    parts = [told[shard::shards] for shard in range(shards)]
    drafts = [Draft({name: [row[name] for row in part] for name in part[0]}) for part in parts]
    return endings.merge(iter([endings.of_shard(draft) for draft in drafts]))


def test_where_captions_end_in_a_full_stop_one_without_was_cut() -> None:
    ending = Ending(EndingConfig(), load_phrases(None), habits(rows(200, None, stops=True)))
    assert ending.repair("A boat. A hut beside a tree", "paragraph", None, "summary") == "A boat."
    assert ending.repair("A hut beside a tree", "sentence", None, "summary") is None
    assert ending.repair("A hut beside a tree", "sentence", "stop", "summary") == "A hut beside a tree."
    assert ending.repair("A hut beside a tree", "sentence", None, "style") == "A hut beside a tree."
    assert ending.repair("A hut beside a tree", "phrase", None, "summary") == "A hut beside a tree"


def test_where_they_do_not_a_word_that_never_stands_last_tells() -> None:
    ending = Ending(EndingConfig(), load_phrases(None), habits(rows(200, None, stops=False)))
    assert ending.repair("A hut beside a tree", "sentence", None, "summary") == "A hut beside a tree."
    assert ending.repair("A hut beside a rustic", "sentence", None, "summary") is None
    assert ENDING.repair("A hut beside a rustic", "sentence", None, "summary") == "A hut beside a rustic."


@pytest.mark.parametrize(("count", "finish"), [(50, None), (200, "stop"), (200, "length")])
def test_few_captions_teach_nothing_about_full_stops_nor_do_those_of_engines(count: int, finish: str | None) -> None:
    assert not habits(rows(count, finish, stops=True)).stopped


def test_habits_do_not_depend_on_shards() -> None:
    told = rows(150, None, stops=True) + rows(150, None, stops=False)
    told = [{**row, "key": f"{number:04}"} for number, row in enumerate(told)]
    assert habits(told).digest == habits(told, 7).digest != Habits().digest
    assert habits(told) == habits(told[::-1], 3)
