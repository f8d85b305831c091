"""What samples are and what is odd about them, before anything is trained: one check per concept in `checks`."""

from __future__ import annotations

from im2im_core.review.aim import Aim
from im2im_core.review.checks.labels import check_validation
from im2im_core.review.checks.whole_set import overlap_train_validation
from im2im_core.review.codes import CODES, Problem, problem
from im2im_core.review.facts import SampleFacts, facts_of
from im2im_core.review.label_facts import LabelFacts
from im2im_core.review.look import Review, examine, problem_of, problems_of, review
from im2im_core.review.pixels import PixelFacts, pixel_facts

__all__ = [
    "CODES",
    "Aim",
    "LabelFacts",
    "PixelFacts",
    "Problem",
    "Review",
    "SampleFacts",
    "check_validation",
    "examine",
    "facts_of",
    "overlap_train_validation",
    "pixel_facts",
    "problem",
    "problem_of",
    "problems_of",
    "review",
]
