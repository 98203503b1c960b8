"""Synthetic X-ray coronary angiograms: what the C-arm would see of invented patients, with the truth beside it.

`make_patient` gives the frames of one film, `make_frame` one frame of a patient of its own. Everything follows from
the seeds. The truth follows what can be seen, by these rules:

* A point of a vessel counts where the contrast agent darkens the noise-free picture by at least `SEEN_LEVELS` grey
  levels and, times the square root of the vessel's width in pixels, by at least `SEEN_NOISE` standard deviations of
  the noise; runs shorter than `SEEN_RUN` of the picture's width are dropped.
* The masks of vessel and catheter do not overlap. Over the catheter's last `TIP_MM` the catheter lies in front;
  farther away a vessel that crosses it does.
* Sternal wires lie in front of everything; their mask may overlap the others, as an annotator would draw a vessel on.
* A catheter that covers less than `LEAST_SHARE` of the picture is not drawn at all, nor a wire of a quarter of that.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from tools.demo import hearts, vessels
from tools.demo.backdrops import Backdrop, make_backdrop

PHRASES = ("blood vessel", "catheter", "sternal wire")
SEEN_LEVELS = 6.0
SEEN_NOISE = 2.5
SEEN_RUN = 0.03
TIP_MM = 14.0
LEAST_SHARE = 0.001
SPACING = 0.7  # px between the samples that a tube is drawn with
_FRAME_STREAM = 1_000_003  # keeps make_frame's random numbers apart from make_patient's


@dataclass(frozen=True)
class Frame:
    """One picture and its truth.

    `image` uint8 (H, W); `masks` phrase -> bool (H, W), all False where the thing is absent; `patient` and `frame` are
    the numbers it was asked for with, `size` is H and W.
    """

    image: np.ndarray
    masks: dict[str, np.ndarray]
    patient: int
    frame: int
    size: int


@dataclass(frozen=True)
class _Patient:
    """Everything about a film that does not change from frame to frame; lengths in mm."""

    heart: hearts.Heart
    view: hearts.View
    tree: list[vessels.Branch]
    shift: np.ndarray  # the middle of the picture in image coordinates
    field: float  # width of the picture
    catheter: np.ndarray | None
    root: np.ndarray  # the middle of the aortic root
    catheter_radius: float
    lumen: float  # share of contrast agent inside the catheter
    tip: float  # 1 where the catheter ends in a marker
    wires: list[tuple[np.ndarray, np.ndarray]]
    backdrop: Backdrop
    opacity: float  # the beam's loss per mm of filled vessel
    streaming: list[np.ndarray]  # per branch, uneven mixing of the contrast agent along it
    fading: float  # over which length the agent thins out
    veil: float  # share of the light that is scatter
    blur: float  # px
    sharpen: float
    noise: float  # grey levels at grey 128
    grain: float  # px
    puff: float  # contrast agent in the aortic root
    beat: float  # where in the heart's cycle the film begins


def _make_subject(rng: np.random.Generator) -> _Patient:
    left = bool(rng.random() < 0.6)
    heart = hearts.make_heart(rng)
    view = hearts.make_view(rng, left=left)
    calibre = float(np.clip(rng.lognormal(0.0, 0.2), 0.65, 1.5))
    tree = vessels.grow_tree(rng, heart, left=left, calibre=calibre, rich=rng.random())
    flat = np.concatenate([view.project(heart.place(branch.course, squeeze=0.3)) for branch in tree])
    low, high = flat.min(0), flat.max(0)
    # The operator puts the tree into the middle and magnifies it to fill the picture.
    field = float(np.clip((high - low).max() / rng.uniform(0.62, 1.02), 105, 190))
    shift = (low + high) / 2 + rng.normal(0, 0.045, 2) * field
    # Unit contrast per mm of lumen: a 3.5 mm vessel takes away a quarter to a half of the beam.
    opacity = rng.uniform(0.14, 0.34) if rng.random() < 0.75 else rng.uniform(0.07, 0.14)
    streaming = [
        1 + rng.uniform(0.03, 0.16) * vessels.smooth_walk(rng, branch.run, wavelengths=(15, 80)) for branch in tree
    ]
    root = tree[0].course[0].copy()
    root[2] = 0.0
    root = heart.place(root[None], squeeze=0.3)[0]
    ostium = heart.place(tree[0].course[:1], squeeze=0.3)[0]
    course = vessels.catheter_course(rng, ostium, root, left=left)
    catheter = course if rng.random() < 0.75 else None
    wires = vessels.sternal_wires(rng, view, half=field / 2)
    wires = wires if rng.random() < 0.42 else []
    return _Patient(
        heart=heart,
        view=view,
        tree=tree,
        shift=shift,
        field=field,
        catheter=catheter,
        root=root,
        catheter_radius=rng.uniform(0.85, 1.15),
        lumen=rng.uniform(0.25, 0.85),
        tip=float(rng.random() < 0.4),
        wires=wires,
        backdrop=make_backdrop(rng, heart=heart, view=view, shift=shift, field=field),
        opacity=float(opacity),
        streaming=streaming,
        fading=rng.uniform(300, 1500),
        veil=rng.uniform(0.04, 0.2),
        blur=rng.uniform(0.7, 1.5),
        sharpen=rng.uniform(0, 0.6),
        noise=rng.uniform(1.5, 9.0),
        grain=rng.uniform(0.35, 0.9),
        puff=rng.uniform(0.1, 0.5) if rng.random() < 0.4 else 0.0,
        beat=rng.random(),
    )


class _Canvas:
    """Tubes drawn into a square picture of `size` pixels; `field` mm wide."""

    def __init__(self, size: int, field: float):
        self.size, self.scale = size, size / field

    def trace(self, points: np.ndarray, *values: np.ndarray) -> list[np.ndarray]:
        """The curve (N, 2) in mm as pixel positions about `SPACING` px apart, and the values along it to match."""
        pixels = points * self.scale + (self.size - 1) / 2
        run = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(pixels, axis=0), axis=1))])
        places = np.linspace(0, run[-1], max(int(run[-1] / SPACING), 2))
        return [np.stack([np.interp(places, run, pixels[:, axis]) for axis in (0, 1)], axis=1)] + [
            np.interp(places, run, value) for value in values
        ]

    def stamp(self, pixels: np.ndarray, radius: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """In batches: flat indices of pixels near samples, their squared distance in px, the sample's number."""
        reach = np.ceil(radius + 0.5).astype(int)
        inside = np.all((pixels > -reach[:, None] - 1) & (pixels < self.size + reach[:, None]), axis=1)
        for half in np.unique(reach[inside]):
            chosen = np.flatnonzero(inside & (reach == half))
            offset = np.arange(-half, half + 1)
            base = np.rint(pixels[chosen]).astype(int)
            columns = base[:, 0, None] + offset
            rows = base[:, 1, None] + offset
            across = (columns - pixels[chosen, 0, None]) ** 2
            down = (rows - pixels[chosen, 1, None]) ** 2
            squared = down[:, :, None] + across[:, None, :]
            near = squared <= (radius[chosen] + 0.5)[:, None, None] ** 2
            near &= ((rows >= 0) & (rows < self.size))[:, :, None]
            near &= ((columns >= 0) & (columns < self.size))[:, None, :]
            index = (rows * self.size)[:, :, None] + columns[:, None, :]
            owner = np.broadcast_to(chosen[:, None, None], near.shape)
            yield index[near], squared[near], owner[near]

    def chord(self, pixels: np.ndarray, radius: np.ndarray, *weights: np.ndarray) -> list[np.ndarray]:
        """For each weight (N,), the picture (size * size,) of weight x length of the beam inside the tube, in mm."""
        layers = [np.zeros(self.size * self.size, np.float32) for _ in weights]
        # A tube thinner than a pixel still shades it by its share: it is drawn wider and thinner.
        wide = np.maximum(radius, 0.6)
        thin = (radius / wide) ** 2
        for index, squared, owner in self.stamp(pixels, wide):
            length = 2 * np.sqrt(np.maximum(wide[owner] ** 2 - squared, 0)) * thin[owner] / self.scale
            for layer, weight in zip(layers, weights, strict=True):
                np.maximum.at(layer, index, (length * weight[owner]).astype(np.float32))
        return layers

    def cover(self, mask: np.ndarray, pixels: np.ndarray, radius: np.ndarray) -> None:
        """Set the flat `mask` where a pixel's centre lies in the tube; at least a one-pixel line."""
        radius = np.maximum(radius, 0.55)
        for index, squared, owner in self.stamp(pixels, radius):
            mask[index[squared <= radius[owner] ** 2]] = True


def _fill(run: np.ndarray, *, time: float) -> np.ndarray:
    """Share of contrast agent along the tree, `run` mm from the ostium; `time` 0: just injected, 1: washing out."""
    front = 60 + 420 * time
    washed = 1 / (1 + np.exp((run - (time - 0.62) * 420) / 22))
    return (1 - 0.6 * washed) / (1 + np.exp((run - front) / 9))


def _cloud(subject: _Patient, *, size: int, time: float) -> np.ndarray:
    """Contrast agent that spills back into the aortic root: a soft cloud, 0 to 1, gone by the middle of the film."""
    centre = subject.view.project(subject.root[None])[0] - subject.shift + np.array([0.0, -4.0])
    line = ((np.arange(size) + 0.5) / size - 0.5) * subject.field
    cloud = np.zeros((size, size))
    for drift, spread in ((np.zeros(2), 6.0), (np.array([-4.0, -9.0]), 9.0), (np.array([4.0, 5.0]), 5.0)):
        across, down = np.exp(-0.5 * ((line[:, None] - centre - drift) / spread) ** 2).T
        cloud += down[:, None] * across
    return cloud / 1.5 * np.clip(1.2 - 2 * time, 0, 1)


def _keep_runs(seen: np.ndarray, *, least: float, weight: np.ndarray) -> np.ndarray:
    """Bridge gaps shorter than `least` px between seen samples, then drop seen runs (weighted) that are shorter."""
    for wanted, weights in ((False, np.ones(len(seen))), (True, weight)):
        runs, count = ndimage.label(seen == wanted)
        short = np.bincount(runs, weights=weights, minlength=count + 1) * SPACING < least
        short[0] = False
        if not wanted:
            short[runs[[0, -1]]] = False
        seen = np.where(short[runs], not wanted, seen)
    return seen


def _draw_metal(
    subject: _Patient, canvas: _Canvas, *, lit: np.ndarray, squeeze: float, contrast: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The beam's loss in catheter and wires, and where lie the catheter, its last part, and the wires; all flat."""
    loss, (catheter, tip, wires) = np.zeros(lit.size, np.float32), np.zeros((3, lit.size), bool)
    if subject.catheter is not None:
        still, now = (subject.heart.place(subject.tree[0].course[:1], squeeze=beat)[0] for beat in (0.3, squeeze))
        controls = subject.catheter.copy()
        controls[-5:] += np.array([0.2, 0.4, 0.7, 1.0, 1.0])[:, None] * (now - still)
        course = vessels.spline(controls, step=1.0)
        outer = np.full(len(course), subject.catheter_radius * canvas.scale)
        pixels, outer, from_tip = canvas.trace(
            subject.view.project(course) - subject.shift, outer, np.arange(len(course))[::-1]
        )
        canvas.cover(catheter, pixels, outer)
        catheter &= lit
        if catheter.mean() >= LEAST_SHARE:
            dense = 1 + subject.tip * (from_tip < 2.5) * 0.6
            (hull,), (lumen,) = canvas.chord(pixels, outer, dense), canvas.chord(pixels, outer * 0.7, dense)
            inside = (subject.lumen if contrast else 0.15) * max(subject.opacity, 0.1)
            loss += 0.3 * (hull - lumen) + inside * lumen
            last = from_tip < TIP_MM
            canvas.cover(tip, pixels[last], outer[last])
        else:
            catheter[:] = False
    for points, radius in subject.wires:
        pixels, radius = canvas.trace(points, radius * canvas.scale)
        wire = np.zeros(lit.size, bool)
        canvas.cover(wire, pixels, radius)
        if (wire & lit).mean() >= LEAST_SHARE / 4:
            loss += 0.9 * canvas.chord(pixels, radius, np.ones(len(radius)))[0]
            wires |= wire & lit
    return loss, catheter, tip, wires


def _expose(
    subject: _Patient,
    rng: np.random.Generator,
    *,
    size: int,
    scale_like: int,
    time: float,
    squeeze: float,
    contrast: bool = True,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One exposure: the grey picture and its masks. `time` is that of `_fill`, `squeeze` that of the heart."""
    canvas = _Canvas(size, subject.field)
    ratio = size / scale_like
    ground, lit = subject.backdrop.render(size=size, squeeze=squeeze)
    shape = (size, size)

    union = np.zeros(size * size, np.float32)
    total = np.zeros(size * size, np.float32)
    traces = []
    for branch, stream in zip(subject.tree, subject.streaming, strict=True) if contrast else ():
        points = subject.view.project(subject.heart.place(branch.course, squeeze=squeeze)) - subject.shift
        share = _fill(branch.run, time=time) * np.exp(-branch.run / subject.fading) * stream
        pixels, radius, share, lift = canvas.trace(points, branch.radius * canvas.scale, share, branch.lift)
        full, own = canvas.chord(pixels, radius, share, share * lift)
        np.maximum(union, full, out=union)
        total += own
        traces.append((pixels, radius, lift))
    if contrast and subject.puff:
        ground = ground * np.exp(-subject.puff * _cloud(subject, size=size, time=time))
    # Vessels that cross add up; a branch inside its parent's lumen does not.
    iodine = np.maximum(union, total).reshape(shape) * subject.opacity
    blur = np.hypot(subject.blur * ratio, 0.3)
    through = ndimage.gaussian_filter(np.exp(-iodine), blur, truncate=3)

    metal, catheter, tip, wires = _draw_metal(subject, canvas, lit=lit.ravel(), squeeze=squeeze, contrast=contrast)
    solid = np.exp(-metal.reshape(shape))
    if metal.any():
        solid = ndimage.gaussian_filter(solid, blur, truncate=3)

    clean = ground * (subject.veil + (1 - subject.veil) * through * solid)
    darkening = ground * solid * (1 - subject.veil) * (1 - through)
    seen = np.zeros(size * size, bool)
    for pixels, radius, lift in traces:
        column, row = np.rint(pixels).astype(int).T
        held = (column >= 0) & (column < size) & (row >= 0) & (row < size)
        place = np.clip(row, 0, size - 1), np.clip(column, 0, size - 1)
        depth = darkening[place]
        deviation = subject.noise * np.sqrt(np.maximum(clean[place], 20) / 128)
        width = np.maximum(2 * radius / ratio, 1)
        clear = (depth >= SEEN_LEVELS) & (depth * np.sqrt(width) >= SEEN_NOISE * deviation)
        clear = _keep_runs(clear, least=SEEN_RUN * size, weight=lift) & held & lit[place]
        canvas.cover(seen, pixels[clear], radius[clear])
    seen &= ~(catheter & tip)
    masks = {"blood vessel": seen, "catheter": catheter & ~seen, "sternal wire": wires}

    picture = clean
    if subject.sharpen:
        picture = clean + subject.sharpen * (clean - ndimage.gaussian_filter(clean, 4 * ratio, truncate=2.5)) * lit
    static = rng.standard_normal(shape, dtype=np.float32)
    static = ndimage.gaussian_filter(static, subject.grain * ratio) if subject.grain * ratio > 0.3 else static
    static *= subject.noise * ratio**0.75 / max(float(static.std()), 1e-6)
    picture = picture + static * np.sqrt(np.maximum(clean, 4) / 128)
    image = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return image, {phrase: mask.reshape(shape) for phrase, mask in masks.items()}


def make_patient(patient: int, *, frames: int = 6, size: int = 512, seed: int = 0) -> list[Frame]:
    """The film of one invented patient: one anatomy, beating, with the contrast agent coming and going."""
    subject = _make_subject(np.random.default_rng(np.random.SeedSequence([seed, patient])))
    film = []
    for frame in range(frames):
        rng = np.random.default_rng(np.random.SeedSequence([seed, patient, frame]))
        time = 0.12 + 0.78 * frame / max(frames - 1, 1)
        squeeze = 0.5 - 0.5 * np.cos(2 * np.pi * (0.37 * frame + subject.beat))
        image, masks = _expose(subject, rng, size=size, scale_like=size, time=time, squeeze=squeeze)
        film.append(Frame(image=image, masks=masks, patient=patient, frame=frame, size=size))
    return film


def make_frame(seed: int, *, size: int = 256, scale_like: int = 512, empty_share: float = 0.0) -> Frame:
    """One frame of a patient of its own, for training.

    The geometry is in units of the picture, so that 256 px show what `scale_like` px would show at lower resolution:
    blur, grain and noise are those of the `scale_like` picture, shrunk. A share `empty_share` of the frames is taken
    before the contrast agent arrives and has no vessels.
    """
    rng = np.random.default_rng(np.random.SeedSequence([_FRAME_STREAM, seed]))
    subject = _make_subject(rng)
    image, masks = _expose(
        subject,
        rng,
        size=size,
        scale_like=scale_like,
        time=rng.uniform(0.1, 0.95),
        squeeze=rng.random(),
        contrast=bool(rng.random() >= empty_share),
    )
    return Frame(image=image, masks=masks, patient=seed, frame=0, size=size)
