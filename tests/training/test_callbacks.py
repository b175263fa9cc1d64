from __future__ import annotations

from types import SimpleNamespace

from deepfake_cls.training.callbacks import ProgressBar


def test_the_progress_bar_counts_epochs_from_1() -> None:
    bar = ProgressBar()
    bar._trainer = SimpleNamespace(max_epochs=4)  # type: ignore[assignment]  # the bar reads nothing else
    assert [bar._get_train_description(epoch).strip() for epoch in (0, 3)] == ["Epoch 1/4", "Epoch 4/4"]
    assert len(bar._get_train_description(0)) == len(bar.validation_description)
