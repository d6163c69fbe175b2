"""Measures the demo VLM on held-out scenes with greedy decoding and writes the numbers into its model card.

    python -m captioning.demo_vlm.evaluate [--weights DIR] [--scenes 500]

Every prompt is asked in all its paraphrases by turns. The control scores the same answers against another scene's
truth: what a model that does not look would get.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from captioning.demo_vlm.conversations import PromptBook
from captioning.demo_vlm.loading import WEIGHTS, DemoVlm
from captioning.demo_vlm.scoring import bars, is_true
from pipeline.demo_world.language import PROMPT_IDS
from pipeline.demo_world.render import render
from pipeline.demo_world.scene import HELDOUT_OFFSET, sample, truth
from pipeline.errors import HolismError
from pipeline.progress import Progress

_START, _END = "<!-- measured: start -->", "<!-- measured: end -->"
# Wordings that no training question has: do the answers depend on the meaning or on the exact words?
UNSEEN = {
    "main_object": "What is the biggest thing in the image?",
    "background": "Only describe what is behind the objects.",
    "style": "Describe the artistic style of this picture.",
    "nouns": "List nouns for this image, separated by commas.",
}


def ask(
    vlm: DemoVlm, scenes: int, first_seed: int, progress: Callable[[int], None], prompts: Sequence[str] = PROMPT_IDS
) -> list[dict[str, str]]:
    """Per scene, the answer to each of the prompts; the chain's follow-up quotes the model's own first answer."""
    book, said = PromptBook(), [dict[str, str]() for _ in range(scenes)]
    images = [render(sample(first_seed + index)) for index in range(scenes)]
    for prompt in prompts:
        wordings = book.paraphrases[prompt]
        questions = [wordings[index % len(wordings)] for index in range(scenes)]
        questions = [
            text.replace("{main_object}", past.get("main_object", ""))
            for text, past in zip(questions, said, strict=True)
        ]
        texts = vlm.answer(images, questions, 400 if prompt == "everything" else 80)
        for answers_of_scene, text in zip(said, texts, strict=True):
            answers_of_scene[prompt] = text
            progress(1)
    return said


def ask_unseen(vlm: DemoVlm, scenes: int, first_seed: int) -> list[dict[str, str]]:
    """Per scene, the answers to the wordings that training never showed."""
    images = [render(sample(first_seed + index)) for index in range(scenes)]
    columns = {prompt: list(vlm.answer(images, [text] * scenes, 80)) for prompt, text in UNSEEN.items()}
    return [{prompt: column[index] for prompt, column in columns.items()} for index in range(scenes)]


def headline(truths: list[dict[str, Any]], said: list[dict[str, str]]) -> dict[str, float]:
    """The five headline accuracies in percent, over the scenes where each can be judged."""
    rows = [bars(t, answers) for t, answers in zip(truths, said, strict=True)]
    judged = {name: [row[name] for row in rows if row[name] is not None] for name in rows[0]}
    return {name: 100 * sum(map(bool, values)) / len(values) for name, values in judged.items()}


def exact(truths: list[dict[str, Any]], said: list[dict[str, str]]) -> dict[str, float]:
    """Per prompt, the percentage of answers that are, to the letter, a true one."""
    pairs = list(zip(truths, said, strict=True))
    return {prompt: 100 * sum(is_true(t, prompt, s[prompt]) for t, s in pairs) / len(pairs) for prompt in PROMPT_IDS}


def report(truths: list[dict[str, Any]], said: list[dict[str, str]], unseen: list[dict[str, str]]) -> str:
    """The Markdown tables of the model card."""
    others = truths[1:] + truths[:1]
    unseen_bars = headline(truths[: len(unseen)], unseen)
    right, control = headline(truths, said), headline(others, said)
    lines = [f"{len(truths)} held-out scenes, greedy, bfloat16. Control: the same answers against another scene.", ""]
    lines += ["| | accuracy % | unseen wording % | control % |", "| --- | --- | --- | --- |"]
    lines += [f"| {name} | {right[name]:.1f} | {unseen_bars[name]:.1f} | {control[name]:.1f} |" for name in right]
    lines += ["", "| prompt | true to the letter % | control % |", "| --- | --- | --- |"]
    right, control = exact(truths, said), exact(others, said)
    return "\n".join([*lines, *(f"| {prompt} | {right[prompt]:.1f} | {control[prompt]:.1f} |" for prompt in right)])


def write_card(card: Path, tables: str) -> None:
    """Replaces the measured part of the model card."""
    text = card.read_text()
    before, after = text.split(_START)[0], text.split(_END)[1]
    card.write_text(f"{before}{_START}\n{tables}\n{_END}{after}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m captioning.demo_vlm.evaluate")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--card", action="store_true", help="write the tables into the weights' README.md")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        vlm = DemoVlm.load(args.weights)
    except HolismError as error:
        parser.exit(1, f"demo VLM: {error}\n")
    progress = Progress("asking", args.scenes * len(PROMPT_IDS), "answers")
    said = ask(vlm, args.scenes, HELDOUT_OFFSET, progress.update)
    unseen = ask_unseen(vlm, min(args.scenes, 200), HELDOUT_OFFSET)
    progress.close()
    tables = report([truth(sample(HELDOUT_OFFSET + index)) for index in range(args.scenes)], said, unseen)
    print(tables)
    if args.card:
        write_card(args.weights / "README.md", tables)


if __name__ == "__main__":
    main()
