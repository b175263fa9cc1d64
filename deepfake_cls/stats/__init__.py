"""Statistics of results: metrics, intervals, paired comparisons, verdicts. numpy and scipy only.

``metric`` registers a metric: ``@metric("name")`` above a function of labels and probabilities.
"""

from deepfake_cls.stats.metrics import metric

__all__ = ["metric"]
