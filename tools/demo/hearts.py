"""A beating heart seen by a C-arm: where a point of it comes to lie in the picture.

The heart is an ellipsoid in patient coordinates (millimetres; x to the patient's left, y to the back, z to the head).
Heart coordinates are (theta, phi, rho): `theta` is the latitude in radians from the valve plane (0) to the apex (pi/2)
and beyond, `phi` the angle around the long axis from the anterior interventricular groove (0) towards the left lateral
wall (positive), `rho` the depth (1 on the surface, less inside). Projection is orthographic; image coordinates are
millimetres at the heart, x to the right and y down, with the centre of the field at the origin.
"""

from dataclasses import dataclass

import numpy as np

_LONG_AXIS = np.array([0.62, -0.52, -0.58])
_FRONT_GROOVE = np.array([0.10, -0.65, 0.75])
# Working views as (RAO negative / LAO positive, caudal negative / cranial positive), in degrees.
_LEFT_VIEWS = ((-30, -22), (-10, 35), (40, 28), (45, -28), (0, -30), (-30, 5), (-35, 25), (5, 38))
_RIGHT_VIEWS = ((45, 0), (30, 22), (-30, 0), (0, 28), (55, 5))


@dataclass(frozen=True)
class View:
    """A C-arm position: unit vectors to the right of and up the image, and to the detector, in patient coordinates."""

    right: np.ndarray
    up: np.ndarray
    toward: np.ndarray

    def project(self, points: np.ndarray) -> np.ndarray:
        """Image coordinates (N, 2) in mm of patient coordinates (N, 3)."""
        return np.stack([points @ self.right, -(points @ self.up)], axis=1)


@dataclass(frozen=True)
class Heart:
    """An ellipsoid: unit vectors `axis` to the apex, `front` to the anterior groove, `side` to the left wall."""

    axis: np.ndarray
    front: np.ndarray
    side: np.ndarray
    length: float
    depth: float
    width: float
    twist: float

    def place(self, course: np.ndarray, *, squeeze: float) -> np.ndarray:
        """Patient coordinates (N, 3) of heart coordinates (N, 3); `squeeze` is 0 in diastole and 1 in systole."""
        theta, phi, rho = course.T
        phi = phi + self.twist * squeeze * np.sin(theta)
        slim = 1 - 0.15 * squeeze
        along = self.length * ((1 - 0.13 * squeeze) * np.sin(theta) + 0.13 * squeeze)
        around = rho * np.cos(theta) * slim
        return (
            along[:, None] * self.axis
            + (around * np.cos(phi) * self.depth)[:, None] * self.front
            + (around * np.sin(phi) * self.width)[:, None] * self.side
        )

    def outline(self, view: View, *, squeeze: float) -> tuple[np.ndarray, np.ndarray]:
        """Centre (2,) in mm and matrix (2, 2) Q of the projected ellipsoid: inside where x' Q x < 1."""
        slim = 1 - 0.15 * squeeze
        axes = np.stack(
            [
                self.axis * self.length * 0.92,
                self.front * self.depth * slim * 1.12,
                self.side * self.width * slim * 1.12,
            ]
        )
        flat = view.project(axes)
        centre = view.project((self.axis * self.length * 0.12)[None])[0]
        return centre, np.linalg.inv(flat.T @ flat)


def make_heart(rng: np.random.Generator) -> Heart:
    """A heart of random size and lie."""
    axis = _LONG_AXIS + rng.normal(0, 0.08, 3)
    axis /= np.linalg.norm(axis)
    front = _FRONT_GROOVE + rng.normal(0, 0.08, 3)
    front -= axis * (front @ axis)
    front /= np.linalg.norm(front)
    return Heart(
        axis=axis,
        front=front,
        side=-np.cross(axis, front),
        length=rng.uniform(76, 98),
        depth=rng.uniform(33, 43),
        width=rng.uniform(36, 48),
        twist=rng.uniform(0.05, 0.2),
    )


def make_view(rng: np.random.Generator, *, left: bool) -> View:
    """A usual working view for the left or right coronary artery, off by some degrees."""
    views = _LEFT_VIEWS if left else _RIGHT_VIEWS
    turn, tilt = np.radians(np.array(views[rng.integers(len(views))]) + rng.normal(0, 6, 2))
    toward = np.array([np.sin(turn) * np.cos(tilt), -np.cos(turn) * np.cos(tilt), np.sin(tilt)])
    right = np.array([np.cos(turn), np.sin(turn), 0.0])
    return View(right=right, up=np.cross(toward, right), toward=toward)
