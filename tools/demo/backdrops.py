"""What lies behind the vessels: heart, lungs, ribs, spine, diaphragm, table and the edges of the X-ray field."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from tools.demo.hearts import Heart, View

GRID = 208


@dataclass(frozen=True)
class Backdrop:
    """A film's background: `density` of everything but the heart, `weight` the heart's, and how it is exposed.

    `mottle` and `ripple` are uneven brightness and an uneven heart border, `shutter` is 1 where the X-ray field is
    open; `window` is the range of light that is shown as the range `levels` of grey.
    """

    # All arrays (GRID, GRID); densities are exponents of the beam's loss.
    density: np.ndarray
    mottle: np.ndarray
    ripple: np.ndarray
    shutter: np.ndarray
    heart: Heart
    view: View
    shift: np.ndarray
    field: float
    weight: float
    window: tuple[float, float]
    levels: tuple[float, float]

    def render(self, *, size: int, squeeze: float) -> tuple[np.ndarray, np.ndarray]:
        """Grey levels float32 (size, size) without vessels or noise, and bool (size, size): where the field is lit."""
        light = np.exp(-(self.density + self.weight * self._shade(squeeze)))
        # A film is exposed and windowed to a range of grey; what lies far outside of it is compressed, not cut off.
        share = (light - self.window[0]) / (self.window[1] - self.window[0]) - 0.5
        grey = self.levels[0] + (self.levels[1] - self.levels[0]) * (0.5 + 0.75 * np.tanh(share / 0.75))
        grey = np.clip(grey * (1 + self.mottle), 12, 240)
        shutter = _enlarge(self.shutter, size)
        return _enlarge(grey, size) * shutter + 6 * (1 - shutter), shutter > 0.55

    def _shade(self, squeeze: float) -> np.ndarray:
        """How far the beam runs through the heart, 0 to 1."""
        x, y = _grid(self.field)
        centre, form = self.heart.outline(self.view, squeeze=squeeze)
        dx, dy = x - (centre - self.shift)[0] + self.ripple[0], y - (centre - self.shift)[1] + self.ripple[1]
        inside = 1 - (form[0, 0] * dx**2 + 2 * form[0, 1] * dx * dy + form[1, 1] * dy**2)
        return ndimage.gaussian_filter(np.sqrt(np.clip(inside, 0, 1)), 3.0)


def _grid(field: float) -> tuple[np.ndarray, np.ndarray]:
    line = ((np.arange(GRID) + 0.5) / GRID - 0.5) * field
    return line[None, :] + np.zeros((GRID, 1)), line[:, None] + np.zeros((1, GRID))


def _enlarge(picture: np.ndarray, size: int) -> np.ndarray:
    places = (np.arange(size) + 0.5) * GRID / size - 0.5
    low = np.clip(np.floor(places).astype(int), 0, GRID - 2)
    share = np.clip(places - low, 0, 1).astype(np.float32)
    picture = picture.astype(np.float32)
    rows = picture[low] * (1 - share)[:, None] + picture[low + 1] * share[:, None]
    return rows[:, low] * (1 - share) + rows[:, low + 1] * share


def _noise(rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Random clouds about `sigma` grid cells in size, with standard deviation 1."""
    # Bumps on a coarse lattice: the same as filtering white noise, at a fraction of the time for large clouds.
    centres = np.arange(-2 * sigma, GRID + 3 * sigma, sigma)
    bumps = np.exp(-0.5 * ((np.arange(GRID)[:, None] - centres) / sigma) ** 2)
    clouds = bumps @ rng.standard_normal((len(centres), len(centres))) @ bumps.T
    return (clouds - clouds.mean()) / clouds.std()


def _ribs(rng: np.random.Generator, view: View, shift: np.ndarray, field: float) -> np.ndarray:
    """Posterior and anterior ribs as broad bands with denser edges."""
    density = np.zeros((GRID, GRID))
    half = rng.uniform(4.5, 7)
    spacing, offset = rng.uniform(23, 31), rng.uniform(0, 30)
    slope = rng.uniform(0.35, 0.6)
    for back in (True, False):
        if rng.random() < (0.15 if back else 0.65):
            continue
        angles = np.linspace(0.05, np.pi - 0.05, 260) * (1 if back else -1)
        hits = np.ones((GRID, GRID), bool)
        for level in np.arange(-190, 190, spacing) + offset:
            y = 95 * np.sin(angles)
            x = 130 * np.cos(angles)
            z = level + slope * y - 6 * np.cos(2 * angles) + rng.normal(0, 1.5)
            flat = view.project(np.stack([x, y, z], axis=1)) - shift
            cells = np.rint((flat / field + 0.5) * GRID - 0.5).astype(int)
            cells = cells[np.all((cells >= 0) & (cells < GRID), axis=1)]
            hits[cells[:, 1], cells[:, 0]] = False
        if hits.all():
            continue
        distance = ndimage.distance_transform_edt(hits) * field / GRID
        body = 1 / (1 + np.exp((distance - half) / 0.8))
        edge = np.exp(-(((distance - half + 1) / 1.1) ** 2))
        density += rng.uniform(0.02, 0.09) * (body + 0.5 * edge) * (1 if back else 0.6)
    return ndimage.gaussian_filter(density, 1.2)


def _spine(rng: np.random.Generator, view: View, shift: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Vertebral bodies with denser rims, thinner disks between them, and the processes."""
    place = view.project(np.array([[0, 72, 0.0]]))[0] - shift
    lean = rng.normal(0, 0.06)
    across = x - place[0] - lean * y
    height, half = rng.uniform(22, 28), rng.uniform(15, 20)
    along = (y + rng.uniform(0, 30)) % height / height
    waist = half * (1 - 0.12 * np.sin(np.pi * along))
    body = 1 / (1 + np.exp((np.abs(across) - waist) / 1.8))
    disk = np.exp(-(((along - 0.5) * height / 2.8) ** 2))
    plate = np.abs(along - 0.5) * height - 4
    rim = np.exp(-(((np.abs(across) - waist + 1.5) / 1.5) ** 2)) + np.exp(-((plate / 1.3) ** 2)) * body
    process = np.exp(-((across / 3.5) ** 2) - (((along - 0.15) * height / 6) ** 2))
    return rng.uniform(0.08, 0.32) * (body * (1 - 0.22 * disk) + 0.15 * rim + 0.2 * process)


def _diaphragm(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, field: float) -> np.ndarray:
    """The dome of the diaphragm: dense below its edge."""
    radius = rng.uniform(0.45, 1.1) * field
    centre_x, top = rng.uniform(-0.5, 0.5) * field, rng.uniform(0.12, 0.46) * field
    depth = radius - np.hypot(x - centre_x, (y - top - radius) * rng.uniform(0.9, 1.2))
    return rng.uniform(0.2, 0.6) * (1 / (1 + np.exp(-depth / 1.3))) * (0.7 + 0.3 * np.clip(depth / 40, 0, 1))


def _shutter(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, field: float) -> np.ndarray:
    """1 where the X-ray field is open, 0 behind the collimator: round or square corners, or blades."""
    open_ = np.ones((GRID, GRID))
    style = rng.random()
    if style < 0.2:
        radius = rng.uniform(0.55, 0.67) * field
        power = rng.choice([2.0, 4.0])
        open_ *= 1 / (1 + np.exp(((np.abs(x) ** power + np.abs(y) ** power) ** (1 / power) - radius) / 0.6))
    elif style < 0.3:
        for _ in range(rng.integers(1, 3)):
            angle = rng.integers(4) * np.pi / 2 + rng.normal(0, 0.05)
            open_ *= 1 / (1 + np.exp((x * np.cos(angle) + y * np.sin(angle) - rng.uniform(0.38, 0.48) * field) / 0.5))
    return open_


def make_backdrop(rng: np.random.Generator, *, heart: Heart, view: View, shift: np.ndarray, field: float) -> Backdrop:
    """A random background; about one in six is nearly flat, as after subtraction."""
    x, y = _grid(field)
    flat = rng.random() < 0.16
    density = rng.normal(0, 0.15) * x / field + rng.normal(0, 0.2) * y / field
    density = density + rng.uniform(0.02, 0.07) * _noise(rng, GRID / 8)
    if not flat:
        if rng.random() < 0.7:
            density += _ribs(rng, view, shift, field)
        if rng.random() < 0.75:
            density += _spine(rng, view, shift, x, y)
        if rng.random() < 0.6:
            density += _diaphragm(rng, x, y, field)
        density += rng.uniform(0, 0.03) * _noise(rng, GRID / 26)
        if rng.random() < 0.3:
            # The wedge filter that shields the bright lung.
            angle = rng.uniform(0, 2 * np.pi)
            edge = x * np.cos(angle) + y * np.sin(angle) - rng.uniform(0.2, 0.42) * field
            density += rng.uniform(0.15, 0.4) / (1 + np.exp(-edge / rng.uniform(1, 6)))
    mottle = rng.uniform(0.003, 0.012) * _noise(rng, 2) + rng.uniform(0.003, 0.016) * _noise(rng, 4.5)
    ripple = np.stack([_noise(rng, GRID / 7), _noise(rng, GRID / 7)]) * 3.0
    spread = rng.uniform(14, 45) if flat else rng.uniform(50, 120)
    middle = rng.uniform(105, 165)
    backdrop = Backdrop(
        density=density,
        mottle=mottle,
        ripple=ripple,
        shutter=_shutter(rng, x, y, field),
        heart=heart,
        view=view,
        shift=shift,
        field=field,
        weight=rng.uniform(0.02, 0.12) if flat else rng.uniform(0.1, 0.45),
        window=(0.0, 1.0),
        levels=(middle - spread / 2, middle + spread / 2),
    )
    low, high = np.percentile(np.exp(-(density + backdrop.weight * backdrop._shade(0.3))), (4, 96))
    return replace(backdrop, window=(float(low), float(high)))
