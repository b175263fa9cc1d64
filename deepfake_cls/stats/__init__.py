"""Metrics, intervals, paired comparisons and verdicts; needs numpy and scipy only.

``@metric("name")`` registers a function of labels and probabilities as a metric.
"""

from deepfake_cls.stats.metrics import metric

__all__ = ["metric"]
