"""The forms in which data sets lie on disk: a file each, with a section that says where things are and reads them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from evaluation.layouts.choices import ChoicesLayout
from evaluation.layouts.coco import CocoLayout
from evaluation.layouts.image_folder import ImageFolderLayout
from evaluation.layouts.karpathy import KarpathyLayout
from evaluation.layouts.listed import ListLayout
from evaluation.layouts.masks import MasksLayout
from evaluation.layouts.text_files import TextFilesLayout
from evaluation.layouts.webdataset import WebdatasetLayout

Layout = Annotated[
    CocoLayout
    | KarpathyLayout
    | WebdatasetLayout
    | ImageFolderLayout
    | ListLayout
    | TextFilesLayout
    | ChoicesLayout
    | MasksLayout,
    Field(discriminator="kind"),
]
