"""Statistics of results: metrics, intervals, paired comparisons, verdicts. numpy and scipy only."""
