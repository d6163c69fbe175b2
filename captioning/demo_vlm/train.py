"""Trains the demo VLM from nothing: renders scenes, teaches the tower to see, then the whole model to speak.

    python -m captioning.demo_vlm.train --out DIR

An hour and a half on two idle CPU cores (phase A 2.4, phase B 1.05 steps a second), minutes on a GPU. Stopped at any
moment and started again, it goes on from the last checkpoint. DIR/weights then holds the model as vLLM and
transformers load it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from captioning.demo_vlm.conversations import PromptBook
from captioning.demo_vlm.model import TextSize, build_model, save_model
from captioning.demo_vlm.pool import build_pool
from captioning.demo_vlm.see import SeeSettings, take_tower, train_tower
from captioning.demo_vlm.speak import SpeakSettings, train_speaker
from captioning.demo_vlm.tokens import IMAGE, build_processor, build_tokenizer
from pipeline.errors import HolismError


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m captioning.demo_vlm.train", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for scenes, checkpoints and weights")
    parser.add_argument("--scenes", type=int, default=100_000, help="training scenes to render (28 KB of disk each)")
    parser.add_argument("--see-steps", type=int, default=SeeSettings.steps, help="steps of phase A")
    parser.add_argument("--speak-steps", type=int, default=SpeakSettings.steps, help="steps of phase B")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument(
        "--text-width", type=int, default=TextSize.width, help="numbers in a token's vector, a multiple of 32"
    )
    parser.add_argument("--text-layers", type=int, default=TextSize.layers, help="layers of the language model")
    parser.add_argument("--tower", type=Path, help="weights of a demo VLM whose tower takes the place of phase A")
    args = parser.parse_args(argv)
    if args.text_width % 32 or args.text_width < 32:
        parser.error(f"--text-width: found {args.text_width}, expected a multiple of 32")
    try:
        train(args)
    except HolismError as error:
        parser.exit(1, f"demo VLM: {error}\n")


def train(args: argparse.Namespace) -> None:
    """Both phases, as the command line asks for them."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if args.tower:
        args.out.mkdir(parents=True, exist_ok=True)
        take_tower(args.tower, args.out)
    images, patches = build_pool(args.out / "pool", args.scenes, args.threads)
    if not args.tower:
        train_tower(args.out, images, patches, SeeSettings(steps=args.see_steps, seed=args.seed), device)
    tokenizer = build_tokenizer(PromptBook(), args.seed)
    image_token = tokenizer.convert_tokens_to_ids(IMAGE)
    size = TextSize(args.text_width, args.text_layers)
    model = build_model(len(tokenizer), image_token, tokenizer.eos_token_id, tokenizer.pad_token_id, size)
    settings = SpeakSettings(steps=args.speak_steps, seed=args.seed)
    train_speaker(args.out, model, tokenizer, images, patches, settings, device)
    save_model(model, args.out / "weights")
    build_processor(tokenizer).save_pretrained(args.out / "weights")


if __name__ == "__main__":
    main()
