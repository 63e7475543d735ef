"""Classical restorations, given the true kernel and tuned on the truth of each image.

They set the bar as high as it goes: in use, nobody knows the kernel or the best weight.
All take and return float32 images of shape (height, width) on one grey scale.
"""

from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]

WIENER_WEIGHTS = (0.003, 0.01, 0.03, 0.1, 0.3)
RICHARDSON_LUCY_STOPS = (2, 5, 10, 20, 40)
NLM_STRENGTHS = (0.6, 0.8, 1.0)
TV_WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
TV_ITERATIONS = 30


def decibels(image: Image, truth: Image) -> float:
    """Peak signal-to-noise ratio on the scale of 8 bit, dB."""
    return float(20 * np.log10(255.0 / np.sqrt(np.mean((image - truth) ** 2))))


def structural_similarity(image: Image, truth: Image) -> float:
    """SSIM of Wang et al. 2004: Gaussian window of 1.5 px, constants for 8 bit."""
    first, second = (0.01 * 255) ** 2, (0.03 * 255) ** 2

    def mean(values: Image) -> Image:
        return cv2.GaussianBlur(values, (11, 11), 1.5)

    x, y = image.astype(np.float32), truth.astype(np.float32)
    mx, my = mean(x), mean(y)
    vx, vy = mean(x * x) - mx**2, mean(y * y) - my**2
    cross = mean(x * y) - mx * my
    ratio = (2 * mx * my + first) * (2 * cross + second)
    ratio /= (mx**2 + my**2 + first) * (vx + vy + second)
    return float(ratio[5:-5, 5:-5].mean())


class Kernel:
    """A known blur as the transfer function of mirrored images."""

    def __init__(self, kernel: Image, shape: tuple[int, int]) -> None:
        self.margin = kernel.shape[0] // 2
        height, width = (edge + 2 * self.margin for edge in shape)
        padded = np.zeros((height, width), np.float32)
        padded[: kernel.shape[0], : kernel.shape[1]] = kernel / kernel.sum()
        padded = np.roll(padded, (-self.margin, -self.margin), (0, 1))
        self.transfer = np.fft.rfft2(padded)

    def filtered(self, image: Image, response: npt.NDArray[np.complex128]) -> Image:
        """Filter with edges mirrored."""
        padded = np.pad(image, self.margin, mode="reflect")
        full = np.fft.irfft2(np.fft.rfft2(padded) * response, s=padded.shape)
        inner = slice(self.margin, -self.margin)
        return full[inner, inner].astype(np.float32)


def wiener(image: Image, kernel: Kernel) -> Iterator[Image]:
    """Wiener deconvolution with each weight, for a specimen of equal power at all frequencies.

    The mean is known, so that it is left as it is: the weight is one of what varies about it.
    """
    mean = image.mean()
    power = np.abs(kernel.transfer) ** 2
    for weight in WIENER_WEIGHTS:
        yield mean + kernel.filtered(image - mean, np.conj(kernel.transfer) / (power + weight))


def richardson_lucy(
    image: Image, kernel: Kernel, stops: Sequence[int] = RICHARDSON_LUCY_STOPS
) -> Iterator[Image]:
    """Richardson–Lucy deconvolution, stopped after each number of iterations."""
    observed = np.maximum(image, 1.0)
    estimate = np.full_like(observed, observed.mean())
    for iteration in range(1, max(stops) + 1):
        again = np.maximum(kernel.filtered(estimate, kernel.transfer), 1e-3)
        correction = kernel.filtered(observed / again, np.conj(kernel.transfer))
        estimate = estimate * np.maximum(correction, 0.0)
        if iteration in stops:
            yield estimate


def total_variation(image: Image, kernel: Kernel) -> Iterator[Image]:
    """Deconvolution with isotropic total variation, by split Bregman iterations.

    ``argmin |k * x - y|² / 2 + w |grad x|`` (T. Goldstein, S. Osher, SIAM J. Imaging Sci. 2, 2009).
    """
    padded = np.pad(image, kernel.margin, mode="reflect")
    rows, columns = padded.shape
    steps = (
        np.exp(2j * np.pi * np.fft.rfftfreq(columns))[None, :] - 1,
        np.exp(2j * np.pi * np.fft.fftfreq(rows))[:, None] - 1,
    )
    laplace = sum(np.abs(step) ** 2 for step in steps)
    seen = np.conj(kernel.transfer) * np.fft.rfft2(padded)
    inner = slice(kernel.margin, -kernel.margin)
    for weight in TV_WEIGHTS:
        coupling = weight / 10
        kept = [np.zeros_like(padded) for _ in steps]
        error = [np.zeros_like(padded) for _ in steps]
        for _ in range(TV_ITERATIONS):
            pulled = sum(
                np.conj(step) * np.fft.rfft2(d - b)
                for step, d, b in zip(steps, kept, error, strict=True)
            )
            spectrum = (seen + coupling * pulled) / (
                np.abs(kernel.transfer) ** 2 + coupling * laplace + 1e-9
            )
            gradient = [np.fft.irfft2(step * spectrum, s=padded.shape) for step in steps]
            shifted = [g + b for g, b in zip(gradient, error, strict=True)]
            length = np.maximum(np.hypot(*shifted), 1e-6)
            shrink = np.maximum(1 - weight / coupling / length, 0)
            kept = [shrink * part for part in shifted]
            error = [part - d for part, d in zip(shifted, kept, strict=True)]
        yield np.fft.irfft2(spectrum, s=padded.shape)[inner, inner].astype(np.float32)


def non_local_means(image: Image, noise: float) -> Iterator[Image]:
    """OpenCV's non-local means with strengths in units of the noise."""
    grey = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    for strength in NLM_STRENGTHS:
        cleaned = cv2.fastNlMeansDenoising(grey, None, strength * noise, 5, 15)
        yield cleaned.astype(np.float32)


def best(candidates: Iterator[Image], truth: Image) -> Image:
    """The candidate nearest to the truth."""
    return max(candidates, key=lambda image: decibels(image, truth))


Method = Callable[[Image, Kernel, float, Image], Image]

METHODS: dict[str, Method] = {
    "Richardson–Lucy, true kernel": lambda y, k, _, x: best(richardson_lucy(y, k), x),
    "Wiener, true kernel": lambda y, k, _, x: best(wiener(y, k), x),
    "total variation, true kernel": lambda y, k, _, x: best(total_variation(y, k), x),
    "non-local means": lambda y, _, n, x: best(non_local_means(y, n), x),
    "non-local means, then Wiener, true kernel": lambda y, k, n, x: best(
        (image for clean in non_local_means(y, n) for image in wiener(clean, k)), x
    ),
}
"""Name to (acquired, kernel, noise, truth) → restored."""
