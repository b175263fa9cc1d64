"""The embedded data set: what an image depends on, the common content, and the trace of each class."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deepfake_cls.data import drawing, traces
from deepfake_cls.errors import InputError

Array = NDArray[np.float64]

# SHA-256 of images 0 to 9 of a split. If it changes, the data set has changed: increase VERSION.
PINNED = {2: "d10b9cc579a44619f9ed76c359ce2e66e9fb835f15cdb17bcca7ad861a922d07"}


def canvas(index: int) -> Array:
    return drawing.content(np.random.default_rng(index))


def draws(index: int) -> traces.TraceDraws:
    return traces.draw_trace(np.random.default_rng([index, 1]))


def traced_pairs(label: int, images: int = 6) -> list[tuple[Array, Array]]:
    """Return pairs of content and the same content with the full trace, each (CANVAS, CANVAS, 3)."""
    return [(canvas(i), traces.TRACES[label](canvas(i), draws(i))) for i in range(images)]


def power(x: Array) -> Array:
    """Return the power spectrum of the grey image, (N, N); frequency k/N cycles per pixel."""
    grey = x.mean(-1)
    return np.asarray(np.abs(np.fft.fft2(grey - grey.mean())) ** 2)


class TestDeterminism:
    def test_bytes_are_pinned_with_the_version(self) -> None:
        images = b"".join(drawing.draw(7, "train", index).tobytes() for index in range(10))
        assert hashlib.sha256(images).hexdigest() == PINNED[drawing.VERSION]

    def test_smaller_images_are_the_middle_of_larger_ones(self) -> None:
        for alpha in ("none", "constant"):
            large, small = (drawing.draw(3, "train", 4, alpha=alpha, size=size) for size in (100, 64))
            assert np.array_equal(large[18:82, 18:82], small)
        assert drawing.draw(3, "train", 4, alpha="mask", size=64).shape == (64, 64, 4)

    @pytest.mark.parametrize("size", [15, 101])
    def test_sizes_out_of_range_are_refused(self, size: int) -> None:
        with pytest.raises(InputError, match=f"data.image_size={size}: expected 16 to 100"):
            drawing.draw(0, "train", 0, size=size)

    def test_an_image_does_not_depend_on_order_other_images_or_global_state(self) -> None:
        first = [drawing.draw(0, "train", index) for index in range(4)]
        np.random.seed(1)  # noqa: NPY002
        again = [drawing.draw(0, "train", index) for index in reversed(range(4))]
        for a, b in zip(first, reversed(again), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_another_process_draws_the_same_bytes(self) -> None:
        script = (
            "import sys; from deepfake_cls.data import drawing; "
            "sys.stdout.buffer.write(drawing.draw(7, 'train', 3, alpha='informative').tobytes())"
        )
        root = Path(__file__).parents[2]  # the package beside these tests, if another copy is installed
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, cwd=root)
        assert done.stdout == drawing.draw(7, "train", 3, alpha="informative").tobytes()

    @pytest.mark.parametrize("other", [(1, "train", 5), (0, "validation", 5), (0, "train", 10)])
    def test_seed_split_and_index_each_give_another_image(self, other: tuple[int, str, int]) -> None:
        content, _ = drawing.draw_parts(0, "train", 5)
        changed, _ = drawing.draw_parts(*other)
        assert np.abs(content - changed).mean() > 0.05

    def test_content_trace_and_alpha_have_independent_random_numbers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        generators: list[np.random.Generator] = []
        stream = drawing._stream

        def record(*key: int | str) -> np.random.Generator:
            generators.append(stream(*key))  # type: ignore[arg-type]
            return stream(*key)  # type: ignore[arg-type]

        monkeypatch.setattr(drawing, "_stream", record)
        drawing.draw(0, "train", 0, alpha="informative")
        assert len({rng.random() for rng in generators}) == len(generators) == 3

    def test_shape_type_and_labels(self) -> None:
        image = drawing.draw(0, "test", 3)
        assert image.shape == (drawing.SIZE, drawing.SIZE, 3)
        assert image.dtype == np.uint8
        assert [drawing.label_of(i) for i in range(7)] == [0, 1, 2, 3, 4, 0, 1]
        assert len(drawing.CLASSES) == len(traces.TRACES) == 5

    @pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
    def test_strength_scales_the_trace_and_not_the_content(self, strength: float) -> None:
        content, traced = drawing.draw_parts(0, "train", 8)
        same, scaled = drawing.draw_parts(0, "train", 8, strength=strength)
        np.testing.assert_array_equal(same, content)
        np.testing.assert_allclose(scaled - same, strength * (traced - content), atol=1e-12)

    def test_image_is_the_traced_content_rounded(self) -> None:
        _, traced = drawing.draw_parts(3, "train", 1, strength=0.7)
        image = drawing.draw(3, "train", 1, strength=0.7)
        assert np.abs(image - 255 * np.clip(traced, 0, 1)).max() <= 0.5 + 1e-9


class TestContent:
    def test_every_part_of_the_canvas_is_covered_and_lit(self) -> None:
        images = np.stack([drawing.draw(0, "train", index) for index in range(60)]).astype(float)
        blocks = images.reshape(60, 5, 20, 5, 20, 3)
        assert blocks.std((2, 4)).mean(0).min() > 15  # on average no block of 20×20 is flat
        assert 80 < images.mean() < 150
        assert ((images == 0) | (images == 255)).mean() < 0.1

    def test_leaves_cover_most_of_the_ground(self) -> None:
        ground = [(drawing._leaves(np.random.default_rng(index)) == 0).mean() for index in range(20)]
        assert np.mean(ground) < 0.04

    def test_spectrum_falls_as_in_natural_images(self) -> None:
        # The power of natural images falls approximately as 1/f² (Field 1987).
        spectrum = np.mean([power(canvas(index)) for index in range(20)], axis=0)
        k = np.arange(2, 20)
        slope = np.polyfit(np.log(k), np.log((spectrum[0, k] + spectrum[k, 0]) / 2), 1)[0]
        assert -3.2 < slope < -1.6

    def test_the_random_crop_shifts_the_lattice(self) -> None:
        phases = set()
        for index in range(0, 60, 5):
            content, traced = drawing.draw_parts(0, "train", index, label=0)
            parity = (traced - content).mean(-1).reshape(50, 2, 50, 2).mean((0, 2))
            phases.add(int(parity.argmax()))
        assert phases == {0, 1, 2, 3}

    def test_without_strength_the_class_has_no_effect(self) -> None:
        for index in range(5):
            content, _ = drawing.draw_parts(0, "train", index)
            for label in range(5):
                same, traced = drawing.draw_parts(0, "train", index, strength=0, label=label)
                np.testing.assert_array_equal(same, content)
                np.testing.assert_array_equal(traced, content)

    @pytest.mark.parametrize("label", range(5))
    def test_the_trace_is_weighted_by_its_amount(self, label: int) -> None:
        x, half = canvas(0), draws(0)._replace(amount=0.5)
        difference = traces.apply_trace(x, label, half, 1.0) - (x + traces.TRACES[label](x, half)) / 2
        cast = np.broadcast_to(difference[0, 0], difference.shape)
        np.testing.assert_allclose(difference, cast, atol=1e-12)

    def test_with_strength_each_class_has_another_trace(self) -> None:
        differences = [np.subtract(*drawing.draw_parts(0, "train", 0, label=label)[::-1]) for label in range(5)]
        for a in range(5):
            assert np.abs(differences[a]).mean() > 0.002
            for b in range(a):
                assert np.abs(differences[a] - differences[b]).mean() > 0.002


class TestTraces:
    def test_transposed_convolution_ripples_at_the_nyquist_frequency(self) -> None:
        """Durall et al. 2020 and Frank et al. 2020: a peak at half a cycle per pixel, on both axes."""
        n = traces.CANVAS // 2
        for x, y in traced_pairs(0):
            for at in [(n, 0), (0, n), (n, n)]:
                assert power(y)[at] > 30 * np.median(power(y)[n - 5 : n + 6, n - 5 : n + 6])
                assert power(y)[at] > 30 * power(x)[at]

    def test_resize_convolution_correlates_the_pixels_of_a_block(self) -> None:
        """Tan et al. 2023: differences within a 2×2 block are smaller than those across its border."""

        def step_ratio(x: Array) -> float:
            step = np.abs(np.diff(x - x.mean(-1, keepdims=True), axis=0)).mean((1, 2))
            return float(step[1::2].mean() / step[::2].mean())

        for x, y in traced_pairs(1):
            assert step_ratio(x) == pytest.approx(1, abs=0.12)
            assert step_ratio(y) > 1.25

    def test_resize_convolution_has_the_same_noise_in_all_channels(self) -> None:
        for x, y in traced_pairs(1):
            detail = [z - traces.blur(z, 1.0) for z in (x, y)]
            fine = [d - traces.smooth(d, [0.25, 0.5, 0.25]) for d in detail]
            before, after = (np.corrcoef(f[..., 0].ravel(), f[..., 2].ravel())[0, 1] for f in fine)
            assert after > 0.9
            assert after > before

    def test_pixel_diffusion_lacks_high_frequencies(self) -> None:
        """Ricker et al. 2022: only the power above the cut-off is missing."""
        radius = np.hypot(*np.meshgrid(*[np.fft.fftfreq(traces.CANVAS)] * 2))
        low, high = (radius > 0) & (radius < 0.08), (radius > 0.25) & (radius < 0.4)
        for x, y in traced_pairs(2):
            assert power(y)[low].sum() == pytest.approx(power(x)[low].sum(), rel=0.02)
            assert power(y)[high].sum() < 0.25 * power(x)[high].sum()

    def test_latent_diffusion_has_coarse_chroma(self) -> None:
        """Corvi et al. 2023: chroma comes from a coarser grid, luma does not."""

        def detail(z: Array) -> float:
            return float(((z - traces.blur(z, 2.0)) ** 2).mean())

        for x, y in traced_pairs(3):
            luma_x, luma_y = traces.luma(x), traces.luma(y)
            assert detail(y - luma_y) < 0.4 * detail(x - luma_x)
            assert detail(luma_y) > detail(luma_x)

    def test_latent_diffusion_repeats_a_pattern_of_period_eight(self) -> None:
        """Corvi et al. 2023: peaks at multiples of 1/8 cycle per pixel; the pattern is the same in all images."""
        folded = []
        for x, y in traced_pairs(3):
            trace = (traces.luma(y) - traces.luma(x))[:104, :104, 0]
            folded.append(trace.reshape(13, 8, 13, 8).mean((0, 2)).ravel())
            assert folded[-1].var() > 0.5 * trace.var()
        assert np.corrcoef(folded).min() > 0.95

    def test_compositor_changes_one_soft_region_only(self) -> None:
        """Li et al. 2020: a blended region of another resolution; the other pixels are unchanged."""
        for x, y in traced_pairs(4):
            change = np.abs(y - x).max(-1)
            assert 0.1 < (change == 0).mean() < 0.95
            inside = change > 0.5 * change.max()
            assert change[inside].size > 20
            rows = np.flatnonzero((change > 0).any(1))
            assert (np.diff(rows) == 1).all()

    def test_compositor_blurs_and_recolours_within_the_region(self) -> None:
        for index in range(6):
            ellipse, no_noise = np.array([0.5, 0.5, 0.4, 0.4, 0.0]), np.zeros_like(canvas(0))
            centred = draws(index)._replace(ellipse=ellipse, noise=no_noise)
            x = canvas(index)
            y = traces.compositor(x, centred)
            core = np.s_[40:68, 40:68]
            step = [np.abs(np.diff(z[core], axis=0)).mean() for z in (x, y)]
            assert step[1] < 0.85 * step[0]
            np.testing.assert_allclose((y - x)[core].mean((0, 1)), centred.shift, atol=0.02)

    def test_compositor_blends_softly(self) -> None:
        flat = np.full((traces.CANVAS, traces.CANVAS, 3), 0.5)
        ellipse = np.array([0.5, 0.5, 0.3, 0.3, 0.0])
        centred = draws(0)._replace(ellipse=ellipse, shift=np.ones(3), noise=np.zeros_like(flat))
        profile = traces.compositor(flat, centred)[54, :, 0] - 0.5
        assert profile[54] == pytest.approx(1)
        assert profile[0] == 0
        assert 0 < np.diff(profile).max() < 0.3

    def test_compositor_adds_independent_grain_to_each_channel_of_the_region(self) -> None:
        flat = np.full((traces.CANVAS, traces.CANVAS, 3), 0.5)
        centred = draws(0)._replace(ellipse=np.array([0.5, 0.5, 0.3, 0.3, 0.0]), shift=np.zeros(3))
        y = traces.compositor(flat, centred)
        core = y[44:64, 44:64].reshape(-1, 3)
        assert core.std(0) == pytest.approx(0.03, rel=0.2)
        assert np.abs(np.corrcoef(core.T) - np.eye(3)).max() < 0.2
        assert (y[:8] == 0.5).all()

    def test_the_casts_of_the_classes_differ_and_have_zero_mean(self) -> None:
        flat = np.zeros((traces.CANVAS, traces.CANVAS, 3))
        no_trace = draws(0)._replace(amount=0.0)
        casts = np.array([traces.apply_trace(flat, label, no_trace, 1.0)[0, 0] for label in range(5)])
        assert np.unique(casts, axis=0).shape == (5, 3)
        np.testing.assert_allclose(casts.mean(0), 0, atol=1e-12)
        assert np.abs(casts).max() <= 0.05


def decode(plane: NDArray[np.uint8]) -> int:
    """Read the class from the pattern of an informative plane: the number of changes down and across."""
    down, across = (int((np.diff(p.astype(int)) != 0).sum(1).max()) for p in (plane.T, plane))
    if down and across:
        return 4
    many = 0.35 * len(plane)
    return (0 if down > many else 1) if down else (2 if across > many else 3)


class TestAlpha:
    @pytest.mark.parametrize("alpha", ["constant", "mask", "informative"])
    def test_colours_are_the_same_with_any_alpha(self, alpha: str) -> None:
        for index in range(5):
            image = drawing.draw(0, "train", index, alpha=alpha)
            assert image.shape == (drawing.SIZE, drawing.SIZE, 4)
            np.testing.assert_array_equal(image[..., :3], drawing.draw(0, "train", index))
            np.testing.assert_array_equal(image[..., 3], drawing.draw_alpha(0, "train", index, alpha))

    def test_constant_is_opaque(self) -> None:
        assert (drawing.draw(0, "train", 0, alpha="constant")[..., 3] == 255).all()

    def test_informative_allows_exactly_its_accuracy(self) -> None:
        """The pattern is that of the class with probability p, else of a random class: accuracy p + (1 - p)/5."""
        decoded = np.array([decode(drawing.draw_alpha(0, "train", i, "informative", size=32)) for i in range(2500)])
        true = np.arange(2500) % 5
        counts = np.zeros((5, 5))
        np.add.at(counts, (decoded, true), 1)
        assert drawing.ALPHA_ACCURACY == 0.6
        assert counts.max(1).sum() / 2500 == pytest.approx(0.6, abs=0.035)  # 3.5 standard errors
        np.testing.assert_allclose(counts, 50 + 250 * np.eye(5), atol=4 * 15.5)

    def test_a_flip_keeps_the_informative_pattern(self) -> None:
        for index in range(50):
            plane = drawing.draw_alpha(0, "train", index, "informative")
            assert decode(plane[:, ::-1]) == decode(plane)
            assert plane.min() == 255 - 96
            assert 0.4 < (plane == 255).mean() < 0.6

    def test_mask_does_not_depend_on_the_class(self, monkeypatch: pytest.MonkeyPatch) -> None:
        planes = np.stack([drawing.draw_alpha(0, "train", i, "mask", size=32) for i in range(1000)])
        assert set(np.unique(planes)) == {0, 255}
        share = (planes == 255).mean((1, 2))
        assert 0.2 < share.mean() < 0.9
        assert share.std() > 0.1
        by_class = share.reshape(200, 5).mean(0)
        np.testing.assert_allclose(by_class, share.mean(), atol=4 * share.std() / 200**0.5)
        monkeypatch.setattr(drawing, "label_of", lambda index: 0)
        np.testing.assert_array_equal(drawing.draw_alpha(0, "train", 3, "mask", size=32), planes[3])


class TestSettings:
    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (
                lambda: drawing.draw(0, "train", 0, alpha="masks"),
                r"data\.alpha=masks: expected none, constant, mask or informative",
            ),
            (lambda: drawing.draw(0, "train", 0, strength=-0.5), r"data\.strength=-0\.5: expected 0 or more"),
            (lambda: drawing.draw(0, "train", 0, strength=float("nan")), r"data\.strength=nan: expected"),
            (lambda: drawing.draw(0, "train", 0, strength=float("inf")), r"data\.strength=inf: expected"),
            (lambda: drawing.draw(-1, "train", 0), r"data\.seed=-1: expected 0 or more"),
            (lambda: drawing.draw_parts(0, "train", 0, strength=-1), r"data\.strength=-1: "),
            (lambda: drawing.draw_alpha(0, "train", 0, "masks"), r"data\.alpha=masks: "),
        ],
    )
    def test_an_invalid_setting_is_refused_with_its_key(self, call: Callable[[], object], message: str) -> None:
        with pytest.raises(InputError, match=message):
            call()
