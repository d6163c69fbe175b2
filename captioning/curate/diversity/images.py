"""Figures of diversity of single images: how alike an image's captions are, and how many different things they say."""

from __future__ import annotations

import numpy as np

from captioning.curate.diversity.bleu import self_bleu
from captioning.curate.selection import semantic
from captioning.curate.selection.ngrams import Ngrams, sorted_unique
from captioning.curate.selection.padding import mean_pairwise

ORDERS = (1, 2, 3)  # of distinct-n


def of_images(
    ngrams: Ngrams, open_BM: np.ndarray, lexical_BMM: np.ndarray, semantic_BMM: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Figures by name, (B,) each, NaN where an image has fewer than two captions (distinct-n: no n-grams).

    `ngrams` has the open captions as texts, image by image. `text_similarity` is the figure that the paper reports:
    the mean pairwise cosine of sentence embeddings; it and `vendi_semantic` need embeddings.
    """
    figures = {
        "lexical_similarity": mean_pairwise(lexical_BMM, open_BM),
        "self_bleu": self_bleu(ngrams, open_BM),
        "vendi_lexical": vendi(lexical_BMM, open_BM),
    }
    if semantic_BMM is not None:
        figures["text_similarity"] = mean_pairwise(semantic_BMM, open_BM)
        figures["vendi_semantic"] = vendi(semantic_BMM, open_BM)
    image_T = np.flatnonzero(open_BM.ravel()) // open_BM.shape[1]
    return figures | {f"distinct_{order}": _distinct(ngrams, image_T, len(open_BM), order) for order in ORDERS}


def vendi(similarity_BMM: np.ndarray, open_BM: np.ndarray) -> np.ndarray:
    """Vendi score: the effective number of different captions, 1 (all the same) to n (nothing in common), (B,).

    The exponential of the entropy of the eigenvalues of similarity / n (Friedman and Dieng, 2023). NaN for fewer than
    two captions.
    """
    count_B = open_BM.sum(axis=1)
    there_BMM = open_BM[:, :, None] & open_BM[:, None, :]
    kernel_BMM = np.where(there_BMM, similarity_BMM, 0.0) / np.maximum(count_B, 1)[:, None, None]
    value_BM = np.clip(np.linalg.eigvalsh(kernel_BMM), 0.0, None)
    entropy_B = -(value_BM * np.log(np.where(value_BM > 0, value_BM, 1.0))).sum(axis=1)
    return np.where(count_B > 1, np.exp(entropy_B), np.nan)


def _distinct(ngrams: Ngrams, image_T: np.ndarray, images: int, order: int) -> np.ndarray:
    """distinct-n of each image's captions together (Li et al., 2016)."""
    code_N, text_N, codes = ngrams.of_order(order)
    image_N = image_T[text_N]
    all_B = np.bincount(image_N, minlength=images)
    different_B = np.bincount(sorted_unique(image_N * codes + code_N) // max(codes, 1), minlength=images)
    captions_B = np.bincount(image_T, minlength=images)
    return np.where((all_B > 0) & (captions_B > 1), different_B / np.maximum(all_B, 1), np.nan)


def cosines(vectors: np.ndarray | None, rows_BM: np.ndarray) -> np.ndarray | None:
    """Semantic similarity where there are embeddings."""
    return None if vectors is None else semantic.similarity(vectors, rows_BM)
