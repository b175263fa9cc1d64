"""Figures: what they draw for which images."""

from __future__ import annotations

import numpy as np

from deepfake_cls.figures import PALETTE, by_class, classes_figure, learning_figure, nearest_figure, traces_figure


def test_images_are_grouped_by_class_without_unlabelled_ones() -> None:
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    groups = by_class(images, np.array([1, 0, -1, 1, 0, 1]), ["a", "b"], limit=2)
    assert {name: group.ravel().tolist() for name, group in groups.items()} == {"a": [1, 4], "b": [0, 3]}


def test_the_mean_residual_shows_a_trace_at_a_fixed_position() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(100, 156, (40, 16, 16, 3), dtype=np.uint8)
    marked = noise.copy()
    marked[:, 5, 7] += 60
    figure = traces_figure({"plain": noise, "v$marked$": marked})
    figure.canvas.draw()
    means = [np.asarray(axes.images[0].get_array()) for axes in figure.axes[:2]]
    assert np.unravel_index(np.abs(means[1]).argmax(), (16, 16)) == (5, 7)
    assert np.abs(means[1]).max() > 3 * np.abs(means[0]).max()
    assert figure.axes[0].images[0].get_clim() == figure.axes[1].images[0].get_clim()
    traces_figure({"one image": noise[:1]}).canvas.draw()


def test_the_frame_of_a_neighbour_shows_whether_its_class_is_right() -> None:
    images = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 4), dtype=np.uint8)
    neighbours = np.array([[0, 1, 1], [1, 1, 0]])
    figure = nearest_figure(images, np.array([0, 1]), images[neighbours], neighbours, ["a", "b$"])
    figure.canvas.draw()
    assert [axes.get_title() for axes in figure.axes] == ["a", "✓ a", "✗ b$", "✗ b$", "b$", "✓ b$", "✓ b$", "✗ a"]
    colours = [axes.spines["top"].get_edgecolor() for axes in figure.axes]
    same, other = (tuple(int(PALETTE[i][j : j + 2], 16) / 255 for j in (1, 3, 5)) for i in (2, 1))
    assert [colour[:3] for colour in colours[1:4]] == [same, other, other]
    drawn = np.asarray(figure.axes[2].images[0].get_array())
    assert np.array_equal(drawn, images[1, ..., :3])


def test_epochs_are_whole_numbers() -> None:
    rows = [{"epoch": float(epoch), "train_loss": 1.0, "val_loss": 1.0, "val_acc": 0.5} for epoch in range(2)]
    for axes in learning_figure({"CNN": rows}).axes:
        assert all(tick == round(tick) for tick in axes.get_xticks())


def test_a_class_with_one_image_has_no_empty_frames() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    figure = classes_figure({"many": images, "one": images[:1]})
    assert [axes.get_frame_on() for axes in figure.axes] == [True] * 6 + [False] * 2 + [True] * 2
