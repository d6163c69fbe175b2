"""Self-distillation: what the student sees in a part, its teacher sees in the whole (after COSMOS, arXiv 2412.01814).

The teacher is the moving average of the weights (`train.ema`). It has the whole picture and all its captions, as the
served vector and the mean of the captions. A view of the student has a crop and some of the captions. Over the batch
the teacher's similarities say how much each sample is like another, which right and wrong pairs do not.
"""

from dataclasses import replace

from torch import Tensor

from pipeline.errors import ConfigError
from training.losses.contrast import matrix
from training.losses.features import Features
from training.losses.served_vectors import served_vectors
from training.losses.student_views import mean_captions
from training.losses.term import TermLoss, mean_over_captions
from training.losses.tiles import relative_entropy


def distillation(features: Features) -> TermLoss:
    """How far the student's softmax over the batch is from the teacher's: the mean over views and both directions.

    The cross entropy less the teacher's own entropy, which has the same gradient: zero where they agree.
    """
    if features.teacher is None or features.views is None:
        raise ConfigError("train.losses: distillation needs a teacher; set train.ema, such as 0.999")
    views, teacher = features.views, features.teacher
    taught_BD, taught_ND = served_vectors(teacher)
    text_BD = mean_captions(teacher.text_BMD, teacher.mask_BM[:, None])[:, 0]
    text_ND = mean_captions(teacher.text_NMD, teacher.mask_NM[:, None])[:, 0]
    i2t_VB = _both(views, views.image_BHD, views.text_NMD, teacher.scale, taught_BD, text_ND)
    t2i_VB = _both(views, views.text_BMD, views.image_NHD, teacher.scale, text_BD, taught_ND)
    return TermLoss(mean_over_captions(views, (i2t_VB + t2i_VB).T / 2))


def _both(
    views: Features, rows_BVD: Tensor, columns_NVD: Tensor, scale: Tensor, taught_BD: Tensor, taught_ND: Tensor
) -> Tensor:
    """One direction, for each view and sample: (V, B); `scale` and the last two are the teacher's."""
    count = rows_BVD.shape[1]
    student = matrix(views, rows_BVD, columns_NVD)
    taught_VBD, taught_VND = taught_BD.expand(count, -1, -1), taught_ND.expand(count, -1, -1)
    return relative_entropy(student, replace(student, rows_GBE=taught_VBD, columns_GNE=taught_VND, scale=scale))
