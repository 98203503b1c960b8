"""Which released model fits which card, and how: forecasts from the catalogue, with no file and no network."""

from __future__ import annotations

from sa2va_lab.loading.catalogue import read_catalogue
from sa2va_lab.loading.forecast import GIB, Forecast, forecast
from sa2va_lab.loading.plan import ONE_IS_ENOUGH, make_rung

CARDS = tuple(size * GIB for size in (8, 12, 16, 24, 32, 40, 48, 80))  # that people have
IMAGES = {"512x512": (512, 512), "800x800": (800, 800), "the largest image": None}
PRECISIONS = ("bf16", "int8", "nf4")


def weigh_releases(*, cards: tuple[int, ...] = CARDS, gpus: int = 4, images: dict | None = None) -> list[dict]:
    """A row for each released model, image and precision: {model, parameters, image, tiles, precision, needed (bytes on
    one card), cards: [{size, spare, least}]}.

    cards: bytes of one card of each kind. images: {label: (width, height), so many tiles, or None for the most that
    there can be}; `IMAGES` if not given. spare: bytes left on one card, below 0 what it lacks; least: how many hold it,
    up to `gpus`, or None.
    """
    rows = []
    for model in read_catalogue().values():
        family, sizes = model.sizes.family, model.sizes
        for image, size in (images or IMAGES).items():
            tiles = family.count_tiles(*size, sizes) if isinstance(size, tuple) else size or family.most_tiles(sizes)
            row = {"model": model.name, "parameters": model.parameters, "image": image, "tiles": tiles}
            for precision in PRECISIONS:
                made = forecast(model.tensors, sizes, precision=precision, tiles=tiles)
                needed = make_rung(precision, made, {"cuda:0": cards[0]}).shares[0].needed
                fits = [{"size": c, "spare": c - needed, "least": _count(precision, made, c, gpus)} for c in cards]
                rows.append(row | {"precision": precision, "needed": needed, "cards": fits})
    return rows


def _count(precision: str, made: Forecast, card: int, gpus: int) -> int | None:
    """The fewest cards that hold it."""
    counts = ({f"cuda:{n}": card for n in range(count)} for count in range(1, gpus + 1))
    return next((len(cards) for cards in counts if make_rung(precision, made, cards).fits), None)


def advise(rows: list[dict], size: int, *, gpus: int) -> dict:
    """What to do with one model and image on `gpus` cards of `size` bytes: {precision, cards, spare, said}, as a plan
    would choose; precision None where nothing fits. rows: of `weigh_releases`, those of the model and the image."""
    fits = {row["precision"]: next(card for card in row["cards"] if card["size"] == size) for row in rows}
    ways = [("bf16", gpus), *((kind, 1) for kind in PRECISIONS[1:]), *((kind, gpus) for kind in PRECISIONS[1:])]
    for kind, most in ways:
        count, spare = fits[kind]["least"], fits[kind]["spare"]
        if count and count <= most:
            said = f"spread over {count} cards" if count > 1 else ONE_IS_ENOUGH if gpus > 1 else "fits"
            return {"precision": kind, "cards": count, "spare": spare if count == 1 else None, "said": said}
    least = min(rows, key=lambda row: row["needed"])
    said = f"too small: one card would need {least['needed'] / GIB:.1f} GiB in {least['precision']}"
    return {"precision": None, "cards": None, "spare": fits[least["precision"]]["spare"], "said": said}
