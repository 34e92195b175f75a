"""Where each pixel of a photo lies in another picture of the same scene, and how sure that is.

Features give a homography, dense flow what it leaves: SIFT (Lowe 2004), MAGSAC++ (Barath et al. 2020) and DIS flow
(Kroeger et al. 2016), all of OpenCV. Only luminance is compared, and only its local structure, since whoever coloured
the picture may have changed its tones.

Shapes: H x W the photo, h x w the picture, as they are compared; L float32 in [0, 100]; coordinates x right, y down, in
pixels, (0, 0) the centre of the first.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

WORKING_SIDE = 1024  # pixels, long side at which luminances are compared
FEATURES = 4000  # of each
RATIO = 0.8  # of the distances to the best and the second match, above which neither is believed (Lowe)
THRESHOLD = 0.006  # of the long side, by which a match may miss the homography
LEAST_MATCHES = 12  # that agree on a homography
SCALES = (1 / 16, 16)  # of a picture to the photo
FARTHEST = 0.03  # of the long side, by which flow may leave the homography
STRUCTURE = 1 / 200  # of the long side, sigma of the neighbourhoods whose structure is compared
RETURN = 0.002  # of the long side, at least a pixel: by which flow there and back may miss
FLAT = 4.0  # variance of L that is taken for noise
DOUBT, BELIEF = 0.35, 0.65  # correlation of structure from which a place is believed a little, and wholly
LEAST_SIDE = 16  # pixels
GOOD_AGREEMENT = 0.8  # at which nothing better is looked for
LEAST_AGREEMENT = 0.5  # correlation of the structure of all that is shown by both
LEAST_COVER = 0.02  # of the photo that the picture shows


class WrongPair(ValueError):
    """The picture does not show what the photo shows; the message says why."""


@dataclass(frozen=True)
class Registration:
    """How a picture fits a photo.

    Attributes:
        places: (H, W, 2) float32, where each pixel of the photo lies in the picture (x, y), in [0, 1] of its sides. The
            size is that of the photo, or a smaller one if the picture is coarser.
        confidence: (H, W) float32 in [0, 1]; 0 outside the picture.
        scale: pixels of the picture for one of the photo, both as they were given.
        agreement: correlation of the structure where the picture shows the photo, at most 1.
        covered_mask: (H, W) float32, 1 where the picture shows the photo.
    """

    places: np.ndarray
    confidence: np.ndarray
    scale: float
    agreement: float
    covered_mask: np.ndarray

    @property
    def covered(self) -> float:
        """Share of the photo that the picture shows."""
        return float(self.covered_mask.mean())

    @property
    def sure(self) -> float:
        """The mean confidence where the picture shows the photo."""
        return float(self.confidence.mean() / max(self.covered, 1e-6))


def register(photo: np.ndarray, picture: np.ndarray) -> Registration:
    """Find a photo (H, W) in a picture (h, w), both L; raises WrongPair: it is not there, or mirrored."""
    try:
        return _register(photo, picture)
    except WrongPair as refusal:
        try:
            _register(photo, np.ascontiguousarray(picture[:, ::-1]))
        except WrongPair:
            raise refusal from None
        raise WrongPair("it shows the photo mirrored; flip it back first") from None


def _register(photo: np.ndarray, picture: np.ndarray) -> Registration:
    if min(*photo.shape, *picture.shape) < LEAST_SIDE:
        raise WrongPair(f"one of them is less than {LEAST_SIDE} pixels high or wide, too small to be compared")
    best, reason = None, ""
    for homography, origin in _homographies(photo, picture):
        fit = _fit(photo, picture, homography)
        if fit is not None and (best is None or fit.agreement > best.agreement):
            best, reason = fit, origin
        if best is not None and best.agreement > GOOD_AGREEMENT:
            break
    if best is None:
        raise WrongPair("nothing of the photo is found in it: too few of its details agree on a place")
    if best.agreement < LEAST_AGREEMENT:
        agreement = f"agreement {best.agreement:.2f}, {LEAST_AGREEMENT} needed"
        raise WrongPair(f"it does not show this photo: {reason}, but what is seen there is unlike ({agreement})")
    return best


def _homographies(photo: np.ndarray, picture: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
    """Candidates (3, 3) from the photo's pixels to the picture's, each with what speaks for it."""
    (height, width), (h, w) = photo.shape, picture.shape
    found = _by_features(photo, picture)
    if found is not None:
        yield found[0], f"{found[1]} details agree on a place"
    # the same framing: smooth photos have no details
    if abs(width * h - w * height) <= 0.03 * max(width * h, w * height):
        sx, sy = w / width, h / height
        yield np.array([[sx, 0, sx / 2 - 0.5], [0, sy, sy / 2 - 0.5], [0, 0, 1]]), "it has the photo's shape"


def _by_features(photo: np.ndarray, picture: np.ndarray) -> tuple[np.ndarray, int] | None:
    """The homography that most matches of SIFT features agree on, and their number."""
    sift = cv2.SIFT.create(FEATURES, contrastThreshold=0.02)
    points, descriptors = zip(
        *(sift.detectAndCompute(_equalized(image), None) for image in (photo, picture)), strict=True
    )
    if any(found is None or len(found) < LEAST_MATCHES for found in descriptors):
        return None
    own, other = (np.sqrt(found / np.maximum(found.sum(1, keepdims=True), 1e-6)) for found in descriptors)  # RootSIFT
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(own, other, k=2)
    kept = [pair[0] for pair in pairs if len(pair) == 2 and pair[0].distance < RATIO * pair[1].distance]
    if len(kept) < LEAST_MATCHES:
        return None
    here = np.array([points[0][match.queryIdx].pt for match in kept], np.float32)
    there = np.array([points[1][match.trainIdx].pt for match in kept], np.float32)
    # back to the photo, so that a miss is counted in the photo's pixels, whatever the picture's scale
    back, inliers = cv2.findHomography(there, here, cv2.USAC_MAGSAC, THRESHOLD * max(photo.shape), None, 10_000, 0.9999)
    if back is None or int(inliers.sum()) < LEAST_MATCHES or abs(np.linalg.det(back)) < 1e-12:
        return None
    homography = np.linalg.inv(back)
    return (homography, int(inliers.sum())) if _is_plausible(homography, here[inliers.ravel() > 0]) else None


def _equalized(luminance: np.ndarray) -> np.ndarray:
    """L -> (H, W) uint8 of even contrast: faded scans have features, too."""
    return cv2.createCLAHE(3.0, (8, 8)).apply(np.clip(luminance * 2.55, 0, 255).astype(np.uint8))


def _is_plausible(homography: np.ndarray, points: np.ndarray) -> bool:
    """Does it keep orientation and a sensible scale at all of the photo's points (N, 2)?"""
    w = np.c_[points, np.ones(len(points))] @ homography[2]
    area = np.linalg.det(homography) / w**3  # of the picture for one of the photo
    return bool((area > SCALES[0] ** 2).all() and (area < SCALES[1] ** 2).all() and area.max() < 16 * area.min())


def _fit(photo: np.ndarray, picture: np.ndarray, homography: np.ndarray) -> Registration | None:
    """Refine a homography with dense flow and see how well the picture fits then; None: it shows next to nothing.

    Photo and picture are compared at the size of the coarser one, else detail that the other lacks would be unlike.
    """
    scale = _scale(homography, photo.shape)
    if scale < 1:
        photo, homography = _smaller(photo, scale), homography @ _enlarging(photo.shape, scale)
    elif scale > 1:
        homography = np.linalg.inv(_enlarging(picture.shape, 1 / scale)) @ homography
        picture = _smaller(picture, 1 / scale)
    height, width = photo.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    there = cv2.perspectiveTransform(np.dstack([x, y]).reshape(1, -1, 2), homography).reshape(height, width, 2)
    flow, believed = _flow(photo, picture, there)
    moved = np.dstack([_sampled(np.ascontiguousarray(there[..., k]), np.dstack([x, y]) + flow) for k in range(2)])
    places = _relative(moved, picture.shape)
    inside = _inside(places)
    if inside.mean() < LEAST_COVER:
        return None
    warped = np.where(inside, _sampled(picture, moved), photo)
    structure, agreement = _likeness(photo, warped, inside)
    confidence = np.clip((structure - DOUBT) / (BELIEF - DOUBT), 0, 1) * believed * inside
    return Registration(places, confidence.astype(np.float32), scale, agreement, inside.astype(np.float32))


def _smaller(image: np.ndarray, factor: float) -> np.ndarray:
    """At least `LEAST_SIDE` pixels high and wide; averaged."""
    size = [max(LEAST_SIDE, round(side * factor)) for side in image.shape[::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _enlarging(shape: tuple[int, int], factor: float) -> np.ndarray:
    """(3, 3) from the pixels of `_smaller` to those of the image."""
    sy, sx = (side / max(LEAST_SIDE, round(side * factor)) for side in shape)
    return np.array([[sx, 0, sx / 2 - 0.5], [0, sy, sy / 2 - 0.5], [0, 0, 1]])


def _flow(photo: np.ndarray, picture: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the homography leaves -> (H, W, 2) in the photo's pixels, and (H, W) in [0, 1]: 0 where it is not believed.

    Args:
        there: (H, W, 2) in the picture's pixels, by the homography.
    """
    size = max(photo.shape)
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setFinestScale(0)
    inside = _inside(_relative(there, picture.shape))
    here, warped = _normalized(photo), _normalized(np.where(inside, _sampled(picture, there), photo))
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # several read each other's patches as they come: other flows in each run, and none sooner
    try:
        forth, back = dis.calc(here, warped, None), dis.calc(warped, here, None)
    finally:
        cv2.setNumThreads(threads)
    y, x = np.mgrid[: photo.shape[0], : photo.shape[1]].astype(np.float32)
    miss = np.linalg.norm(forth + _sampled(back, np.dstack([x, y]) + forth), axis=-1)  # there and back again
    far = np.linalg.norm(forth, axis=-1) / (FARTHEST * size)
    believed = np.clip(2 - miss / max(RETURN * size, 1), 0, 1) * np.clip(4 - 3 * far, 0, 1)
    weight = (believed + 1e-3).astype(np.float32)  # warps are smooth: what is not believed follows its neighbours
    sigma = STRUCTURE * size / 2
    return _blur(forth * weight[..., None], sigma) / _blur(weight, sigma)[..., None], believed


def _normalized(luminance: np.ndarray) -> np.ndarray:
    """L -> (H, W) uint8 of its local structure: mean and contrast of each neighbourhood are made the same."""
    sigma = 4 * STRUCTURE * max(luminance.shape)
    mean = _blur(luminance, sigma)
    spread = np.sqrt(np.maximum(_blur(luminance * luminance, sigma) - mean * mean, 0) + FLAT)
    return np.clip(128 + 45 * (luminance - mean) / spread, 0, 255).astype(np.uint8)


def _likeness(photo: np.ndarray, warped: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, float]:
    """Correlation of L in each neighbourhood -> (H, W) at most 1, where two flat ones are alike; and that of all.

    For all together, neighbourhoods count by their contrast, but strong edges not for much more; flat ones say nothing.
    """
    covariance, own, other = _moments(photo, warped)
    spread = np.sqrt(own * other)
    weight = inside / (np.sqrt(own + other) + 1)
    agreement = (covariance * weight).sum() / max(float(((spread + 1) * weight).sum()), 1e-6)
    return (covariance + FLAT) / (spread + FLAT), float(agreement)


def _moments(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Covariance and variances in each neighbourhood."""
    sigma = STRUCTURE * max(first.shape)
    first, second = first - _blur(first, 4 * sigma), second - _blur(second, 4 * sigma)
    a, b = _blur(first, sigma), _blur(second, sigma)
    products = (_blur(first * second, sigma) - a * b, _blur(first * first, sigma) - a * a)
    return products[0], np.maximum(products[1], 0), np.maximum(_blur(second * second, sigma) - b * b, 0)


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), max(sigma, 0.5), borderType=cv2.BORDER_REFLECT)


def _scale(homography: np.ndarray, shape: tuple[int, int]) -> float:
    """Pixels of the picture for one of the photo, in its middle."""
    w = homography[2] @ (shape[1] / 2, shape[0] / 2, 1)
    return float(np.sqrt(np.clip(np.linalg.det(homography) / w**3, SCALES[0] ** 2, SCALES[1] ** 2)))


def _relative(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(..., 2) in pixels of a picture -> in [0, 1] of its sides."""
    return ((pixels + 0.5) / np.array(shape[::-1], np.float32)).astype(np.float32)


def _inside(places: np.ndarray) -> np.ndarray:
    return np.all((places >= 0) & (places <= 1), axis=-1)


def _sampled(image: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """The image at pixels (H, W, 2), bilinear."""
    return cv2.remap(image, pixels[..., 0], pixels[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
