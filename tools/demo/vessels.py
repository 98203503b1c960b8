"""Coronary arteries on a heart, the catheter that fills them, and steel wires in the sternum: curves and widths.

A vessel is a curve in heart coordinates (see `hearts`).
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.interpolate import CubicSpline

from tools.demo.hearts import Heart, View

STEP_MM = 0.8


@dataclass(frozen=True)
class Branch:
    """One vessel: `course` (N, 3) in heart coordinates, `radius` (N,) in mm, `run` (N,) mm from the ostium.

    `lift` (N,) goes from 0 where the branch still lies in its parent's lumen to 1 where it is a vessel of its own.
    """

    course: np.ndarray
    radius: np.ndarray
    run: np.ndarray
    lift: np.ndarray


def smooth_walk(rng: np.random.Generator, run: np.ndarray, *, wavelengths: tuple[float, float]) -> np.ndarray:
    """A smooth random function of `run` (N,) in mm, about 1 in size: five sines with wavelengths in the given range."""
    waves = rng.uniform(*wavelengths, 5)
    phases = rng.uniform(0, 2 * np.pi, 5)
    return np.sin(2 * np.pi * run[:, None] / waves + phases).sum(1) / np.sqrt(2.5)


def spline(points: np.ndarray, *, step: float = STEP_MM, mm: np.ndarray | float = 1.0) -> np.ndarray:
    """A smooth curve (N, D) through control points (K, D), sampled about every `step` mm; `mm` turns columns to mm."""
    knots = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0) * mm, axis=1))])
    count = max(int(knots[-1] / step), 4)
    return CubicSpline(knots, points, bc_type="natural")(np.linspace(0, knots[-1], count))


def _trunk(
    rng: np.random.Generator,
    heart: Heart,
    points: list,
    *,
    radius: float,
    tortuous: float,
    narrow: float,
    run: float = 0.0,
    parent_radius: float = 0.0,
) -> Branch:
    """A main vessel through control points (theta in radians, phi in degrees, rho), shaken a little."""
    points = np.array(points, dtype=float)
    points[:, 1] = np.radians(points[:, 1])
    points[1:, 0] += rng.normal(0, 0.03, len(points) - 1)
    points[1:, 1] += rng.normal(0, 0.06, len(points) - 1)
    mm = np.array([heart.length, heart.width, heart.width])
    course = spline(points, mm=mm)
    lengths = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(course * mm, axis=0), axis=1))])
    ramp = np.minimum(lengths / 15, 1) * tortuous
    for column in (0, 1):
        course[:, column] += ramp * smooth_walk(rng, lengths, wavelengths=(18, 60)) / mm[column]
    return _finish(rng, course, lengths, radius=radius, run=run, narrow=narrow, parent_radius=parent_radius)


def _twig(
    rng: np.random.Generator,
    heart: Heart,
    parent: Branch,
    at: int,
    *,
    length: float,
    radius: float,
    turn: float,
    aim: float,
    tortuous: float,
    dive: float = 0.0,
) -> Branch:
    """A branch that leaves `parent` at sample `at`, turned by `turn` radians, and bends towards the heading `aim`.

    Headings are 0 towards the apex and pi/2 towards growing phi; `dive` is how steeply it goes into the muscle.
    """
    theta, phi, rho = parent.course[at]
    ahead = parent.course[min(at + 3, len(parent.course) - 1)] - parent.course[max(at - 3, 0)]
    start = np.arctan2(ahead[1] * heart.width * max(np.cos(theta), 0.2), ahead[0] * heart.length) + turn
    lengths = np.arange(0, max(length, 4.0), STEP_MM)
    aim = start + (aim - start + np.pi) % (2 * np.pi) - np.pi
    heading = aim + (start - aim) * np.exp(-lengths / (0.35 * length + 4))
    heading += np.minimum(lengths / 10, 1) * 0.22 * tortuous * smooth_walk(rng, lengths, wavelengths=(12, 45))
    thetas = theta + np.cumsum(np.cos(heading)) * STEP_MM / heart.length
    phis = phi + np.cumsum(np.sin(heading) / np.maximum(np.cos(thetas), 0.25)) * STEP_MM / heart.width
    course = np.stack([thetas, phis, rho - dive * lengths / heart.depth], axis=1)
    course[0] = parent.course[at]
    return _finish(
        rng,
        course,
        lengths,
        radius=min(radius, 0.92 * parent.radius[at]),
        run=parent.run[at],
        narrow=0.45,
        parent_radius=parent.radius[at],
    )


def _finish(
    rng: np.random.Generator,
    course: np.ndarray,
    lengths: np.ndarray,
    *,
    radius: float,
    run: float,
    narrow: float,
    parent_radius: float,
) -> Branch:
    """Widths for a course: tapering to the share `narrow`, uneven, and here and there a lesion."""
    share = lengths / lengths[-1]
    radii = radius * (1 - (1 - narrow) * share ** rng.uniform(0.8, 1.3))
    radii *= 1 + 0.05 * smooth_walk(rng, lengths, wavelengths=(6, 25))
    if lengths[-1] > 25 and rng.random() < 0.35:
        centre, spread = rng.uniform(0.15, 0.8) * lengths[-1], rng.uniform(1.5, 5)
        radii *= 1 - rng.uniform(0.3, 0.75) * np.exp(-0.5 * ((lengths - centre) / spread) ** 2)
    lift = np.ones_like(lengths)
    if parent_radius:
        lift = np.clip((lengths - parent_radius) / max(parent_radius, 0.5), 0, 1)
    return Branch(course=course, radius=np.maximum(radii, 0.2), run=run + lengths, lift=lift)


def _sprout(
    rng: np.random.Generator,
    heart: Heart,
    parent: Branch,
    count: int,
    *,
    length: tuple[float, float],
    size: tuple[float, float],
    tortuous: float,
    aim: float = 0.0,
    span: tuple[float, float] = (0.15, 0.95),
    side: int = 0,
    dive: float = 0.0,
) -> list[Branch]:
    """`count` branches spread along `span` of the parent; `side` fixes on which side they leave (0: both)."""
    twigs = []
    for number, place in enumerate(np.linspace(*span, count + 2)[1:-1]):
        at = int(np.clip(place + rng.normal(0, 0.04), 0.05, 0.95) * (len(parent.course) - 1))
        turn = np.radians(rng.uniform(30, 70)) * (side or (1 if (number + rng.integers(2)) % 2 else -1))
        twigs.append(
            _twig(
                rng,
                heart,
                parent,
                at,
                length=rng.uniform(*length),
                radius=parent.radius[at] * rng.uniform(*size),
                turn=turn,
                aim=aim + rng.normal(0, 0.3),
                tortuous=tortuous,
                dive=dive,
            )
        )
    return twigs


def grow_tree(rng: np.random.Generator, heart: Heart, *, left: bool, calibre: float, rich: float) -> list[Branch]:
    """The left or right coronary tree: trunks first, then what leaves them.

    `calibre` scales the widths (1: a left main of about 4 mm), `rich` between 0 and 1 the number of small branches.
    """
    tortuous = rng.uniform(0.5, 2.4)
    grow = _grow_left if left else _grow_right
    tree, hosts = grow(rng, heart, calibre=calibre, rich=rich, tortuous=tortuous)
    for host in hosts:
        count = int(rng.integers(1, 3 + int(3 * rich)))
        twigs = _sprout(rng, heart, host, count, length=(12, 42), size=(0.4, 0.7), tortuous=tortuous)
        tree += twigs
        for twig in twigs:
            if rng.random() < 0.5 * rich:
                tree += _sprout(rng, heart, twig, 1, length=(8, 24), size=(0.5, 0.75), tortuous=tortuous)
    return tree


def _grow_left(
    rng: np.random.Generator, heart: Heart, *, calibre: float, rich: float, tortuous: float
) -> tuple[list[Branch], list[Branch]]:
    """Left main, anterior descending with its branches, circumflex with its; and those of them that branch on."""
    sprout = partial(_sprout, rng, heart, tortuous=tortuous)
    way = [[-0.12, 30, 0.36], [-0.07, 22, 0.7], [0.0, 12, 1.0]]
    main = _trunk(rng, heart, way, radius=2.1 * calibre, tortuous=0.2, narrow=0.95)
    after = {"run": main.run[-1], "tortuous": tortuous, "parent_radius": main.radius[-1]}
    fork = [main.course[-1, 0], np.degrees(main.course[-1, 1]), 1.0]
    reach, swing = rng.uniform(1.2, 1.85), rng.uniform(75, 165)
    way = [fork, [0.2, 2, 1.0], [0.5, -3, 1.02], [0.9, 0, 1.0], [reach, 3, 1.0]]
    lad = _trunk(rng, heart, way, radius=1.75 * calibre, narrow=0.33, **after)
    way = [fork] + [[0.05 + 0.07 * part, 12 + part * swing, 1.0] for part in (0.25, 0.6, 1.0)]
    lcx = _trunk(rng, heart, way, radius=rng.uniform(1.3, 1.75) * calibre, narrow=0.4, **after)
    near = (0.05, 0.65)
    diagonals = sprout(lad, int(rng.integers(1, 5)), length=(35, 75), size=(0.5, 0.8), aim=0.35, span=near, side=1)
    marginals = sprout(lcx, int(rng.integers(1, 5)), length=(35, 80), size=(0.6, 0.95), aim=0.1, span=(0.1, 1), side=-1)
    deep = {"tortuous": 0.4, "dive": 0.8, "side": -1}  # septals run in the muscle
    count = int(rng.integers(2, 5 + int(5 * rich)))
    septals = sprout(lad, count, length=(14, 38), size=(0.27, 0.45), aim=0.5, span=(0.1, 0.75), **deep)
    atrial = sprout(lcx, int(rng.integers(3)), length=(15, 35), size=(0.25, 0.4), aim=2.6, side=1)
    tree = [main, lad, lcx, *diagonals, *marginals, *septals, *atrial]
    if rng.random() < 0.3:
        # A ramus intermedius: the left main ends in three.
        end = len(main.course) - 1
        length = rng.uniform(40, 80)
        tree.append(
            _twig(rng, heart, main, end, length=length, radius=1.2 * calibre, turn=0.6, aim=0.3, tortuous=tortuous)
        )
    return tree, [lad, *diagonals, *marginals]


def _grow_right(
    rng: np.random.Generator, heart: Heart, *, calibre: float, rich: float, tortuous: float
) -> tuple[list[Branch], list[Branch]]:
    """Right coronary, posterior descending and posterolateral artery; and which of them branch on."""
    sprout = partial(_sprout, rng, heart, tortuous=tortuous)
    way = [[-0.12, -45, 0.36], [-0.1, -52, 0.75], [0.0, -68, 1.03]]
    way += [[0.12, -98, 1.03], [0.14, -130, 1.03], [0.06, -163, 1]]
    rca = _trunk(rng, heart, way, radius=1.9 * calibre, tortuous=tortuous * 0.8, narrow=0.75)
    crux = np.array([rca.course[-1, 0], np.degrees(rca.course[-1, 1]), 1.0])
    after = {"run": rca.run[-1], "tortuous": tortuous, "parent_radius": rca.radius[-1], "narrow": 0.4}
    way = [crux, crux + [0.14, -6, 0], [0.6, -181, 1.0], [rng.uniform(0.9, 1.4), -180, 1.0]]
    pda = _trunk(rng, heart, way, radius=rca.radius[-1] * rng.uniform(0.65, 0.85), **after)
    way = [crux, crux + [-0.03, -16, 0], [0.12, -208, 1.0], [rng.uniform(0.3, 0.7), -225, 1.0]]
    pl = _trunk(rng, heart, way, radius=rca.radius[-1] * rng.uniform(0.7, 0.9), **after)
    acute = sprout(rca, int(rng.integers(1, 4)), length=(28, 65), size=(0.35, 0.6), aim=0.25, span=(0.2, 0.8), side=1)
    upward = sprout(rca, int(rng.integers(3)), length=(15, 40), size=(0.3, 0.42), aim=2.8, span=(0.08, 0.4), side=-1)
    lateral = sprout(pl, int(rng.integers(1, 5)), length=(20, 55), size=(0.6, 0.85), span=(0.1, 0.8), side=1)
    septals = sprout(pda, int(rng.integers(1, 3 + int(4 * rich))), length=(10, 26), size=(0.3, 0.5), aim=0.4, dive=0.6)
    return [rca, pda, pl, *acute, *upward, *lateral, *septals], [pda, pl, *acute]


def catheter_course(rng: np.random.Generator, ostium: np.ndarray, root: np.ndarray, *, left: bool) -> np.ndarray:
    """Control points (K, 3) in patient coordinates from far away to the tip, which lies some mm inside the ostium."""
    out = (ostium - root) / np.linalg.norm(ostium - root)
    up = np.array([-0.12, -0.05, 1.0])
    drop = rng.uniform(-4, 5) if left else rng.uniform(1, 9)
    bend = [
        root - out * rng.uniform(10, 14) + up * rng.uniform(22, 32),
        root - out * rng.uniform(8, 11) + up * (drop + 7),
        root - out * rng.uniform(1, 5) + up * drop,
        ostium - out * rng.uniform(4, 7),
        ostium + out * rng.uniform(1, 5),
    ]
    top = root + up * rng.uniform(60, 75) + rng.normal(0, 4, 3)
    if rng.random() < 0.55:
        # From the groin: up the descending aorta beside the spine, around the arch, down to the root.
        far = [
            root + np.array([rng.uniform(8, 20), 62, -190.0]),
            root + np.array([rng.uniform(8, 22), 62, -60.0]),
            root + np.array([rng.uniform(10, 24), 60, 50.0]),
            root + np.array([10, 30, rng.uniform(88, 105)]),
        ]
    else:
        # From the wrist: down from the neck vessels.
        far = [root + np.array([rng.uniform(-50, 10), 10, 170.0]), root + np.array([rng.uniform(-28, 2), 4, 115.0])]
    return np.array(far + [top] + bend)


def sternal_wires(rng: np.random.Generator, view: View, *, half: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Two to five steel loops in a row, each (points (N, 2) in image mm, radius (N,) in mm).

    `half` is half the width of the picture in mm; the row stays within it.
    """
    count = int(rng.integers(2, 6))
    spacing = min(rng.uniform(19, 32), 1.5 * half / count)
    middle = view.project(np.array([[rng.normal(0, 5), -95, 0.0]]))[0]
    middle = np.array([np.clip(middle[0], -0.68 * half, 0.68 * half), rng.uniform(-0.2, 0.2) * half])
    down = np.array([rng.normal(0, 0.12), 1.0])
    gauge = rng.uniform(0.42, 0.62)
    wires = []
    for number in range(count):
        centre = middle + down * (number - (count - 1) / 2) * spacing + rng.normal(0, 2, 2)
        wide, high, tilt = rng.uniform(4.5, 10), rng.uniform(2.5, 6.5), rng.normal(0, 0.3)
        angles = np.linspace(0, 2 * np.pi * rng.uniform(0.9, 1.0), 60) + rng.uniform(0, 2 * np.pi)
        loop = np.stack([wide * np.cos(angles), high * np.sin(angles)], axis=1)
        # Bent by hand around the bone: flattened on one side, never a true ellipse.
        bent = 1 + rng.uniform(0, 0.18) * np.sin(2 * angles + rng.uniform(0, 6))
        loop *= (bent + rng.uniform(0, 0.1) * np.sin(3 * angles))[:, None]
        end = loop[-1]
        heading = np.arctan2(end[1], end[0]) + rng.normal(0, 0.8)
        tail_run = np.linspace(0, rng.uniform(3, 7), 30)
        # The twisted ends: a short, bent, thicker piece with the beads of its two strands.
        heading = heading + rng.normal(0, 0.15) * tail_run
        tail = end + np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0) * tail_run[1]
        points = np.concatenate([loop, tail])
        turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
        radius = np.concatenate([np.full(len(loop), gauge), gauge * (1.5 + 0.3 * np.sin(4.2 * tail_run))])
        wires.append((points @ turn.T + centre, radius))
    return wires
