"""`holism init`: a first configuration, with comments, for photos, tars or a list of links."""

from __future__ import annotations

from pathlib import Path

import yaml

from pipeline.errors import ConfigError

SOURCES = {
    "photos": """\
  # A folder of images, with all its subfolders. NAME.txt beside NAME.jpg is the alt text; images without are fine.
  source:
    kind: folder
    path: {path}
    # captions: captions.csv   # or a table of alt texts, with the columns file and caption
  # resize: 512                # short side in pixels: smaller shards, quicker decoding; ids of images change
""",
    "tars": """\
  # WebDataset tars, which stay where they are: a tar, a folder of tars, or a glob. NAME.txt or NAME.json beside
  # NAME.jpg has the alt text.
  source:
    kind: webdataset
    path: {path}
""",
    "urls": """\
  # A table of links (csv, tsv or parquet), which are downloaded once; dead ones become error rows.
  source:
    kind: urls
    path: {path}
    url_column: url
    caption_column: caption    # the alt text; null if there is none
  # resize: 512                # short side in pixels: smaller shards, quicker decoding; ids of images change
""",
}
TEMPLATE = """\
# A configuration of Holism. `holism settings` says what every key means, `holism settings SECTION` shows a part.
#
#   holism plan {config}                                    what would run, and why
#   holism run {config} --stages ingest,caption,curate      images, captions, the best of them
#   holism browse {config}                                  look at them
#   holism run {config} --stages train                      a CLIP with a branch for each kind of caption

workspace: workspace           # all results lie here: a folder, or s3:// or gs://

ingest:
{source}
caption:
  # Any vision-language model that vLLM serves, by folder or hub id. The run keeps the commit that `main` stands for,
  # and its warning has the line to put here. To try everything without a GPU: models: [demo_vlm]
  models:
    - {{model: Qwen/Qwen2.5-VL-7B-Instruct, revision: main}}
  prompts: {{set: paper}}        # paper: seven questions; holism: more, on relations, counts, text, actions
  max_pixels: 401408           # 512 image tokens for this model

curate:
  sub_captions: {{enabled: true}}   # parts of long captions as captions of their own
  # select: {{similarity: semantic}}   # tells captions apart by meaning; slow without a GPU

train:
  model: ViT-B-16
  # warm_start: open_clip:laion2b_s34b_b88k   # or a path; fine-tuning needs far fewer images
  epochs: 20
  global_batch: 1024
  warmup_steps: 200
  lr: 5.0e-5

evaluate:
  benchmarks: []               # see docs/evaluation.md; without any, leave the stage out
"""


def init(kind: str, path: str, config: str) -> str:
    """Write a configuration for images of this kind; returns what to print.

    Raises ConfigError where the file is there already, or cannot be written.
    """
    file = Path(config)
    quoted = yaml.safe_dump(path, width=10**6).removesuffix("\n...\n").strip()
    text = TEMPLATE.format(config=config, source=SOURCES[kind].format(path=quoted))
    try:
        with file.open("x", encoding="utf8") as opened:
            opened.write(text)
    except FileExistsError as error:
        raise ConfigError(f"{config} is there already; choose another name: --config NAME.yaml") from error
    except OSError as error:
        raise ConfigError(f"cannot write {config}: {error.strerror}; choose another place: --config FILE") from error
    return f"{config} is written; look it over, then: holism plan {config} --stages ingest,caption,curate"
