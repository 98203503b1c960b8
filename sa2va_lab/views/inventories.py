"""What 00_inspect shows of an inventory: where the gigabytes sit, what was trained, what is missing, what notes say."""

from __future__ import annotations

from sa2va_lab.language import join_sentences, join_words, tr
from sa2va_lab.loading.inventory import Inventory
from sa2va_lab.reports.answers import Answer, Metrics
from sa2va_lab.reports.texts import TEXTS, say, say_size
from sa2va_lab.views import style
from sa2va_lab.views.tables import Table

NEAR = 0.02  # a noted figure within 2 % of the files' agrees with them: notes are rounded


def answer_inventory(whole: Inventory, finetune: Inventory | None = None) -> Answer:
    """The answer: size and whether anything is missing. whole: the model that would run; finetune: the .pth in it."""
    values = dict(parameters=f"{whole.parameters:,}", stored=say_size(whole.bytes), half=say_size(2 * whole.parameters))
    if whole.complete:
        sentences = [
            tr(
                "{parameters} parameters: {stored} as stored, {half} in bf16. Nothing is missing for inference.",
                **values,
            )
        ]
    else:
        missing = join_words(_name(part) for m in whole.missing for part in m.parts)
        values.pop("half")
        sentences = [
            tr(
                "{parameters} parameters: {stored} as stored. This does not run yet; missing: {missing}.",
                missing=missing,
                **values,
            )
        ]
    if finetune is not None:
        own = dict(file=finetune.path.name, parameters=f"{finetune.parameters:,}", stored=say_size(finetune.bytes))
        sentences.append(
            tr("The fine-tune {file} holds {parameters} parameters ({stored}); alone it is no model.", **own)
        )
    metrics = Metrics(inventory=whole.to_dict(), finetune=finetune.to_dict() if finetune else None)
    extra = whole.config.get("sa2va_lab")
    stamp = extra.get("stamp") if isinstance(extra, dict) else None
    return Answer(join_sentences(sentences), metrics, stamp=stamp)


def part_table(inventory: Inventory) -> Table:
    """Tensors, parameters, bytes and dtypes by part, and where each comes from."""
    keys = ("part", "tensors", "parameters", "stored", "half", "dtypes", "origin")
    rows = [
        [
            _name(part.name),
            f"{part.tensors:,}",
            f"{part.parameters:,}",
            say_size(part.bytes),
            say_size(2 * part.parameters),
            ", ".join(part.dtypes),
            ", ".join(part.origin),
        ]
        for part in inventory.parts
    ]
    total = [tr("Together"), f"{sum(p.tensors for p in inventory.parts):,}"]
    total += [f"{inventory.parameters:,}", say_size(inventory.bytes), say_size(2 * inventory.parameters), "", ""]
    return Table([say(f"inventory_{key}") for key in keys], [*rows, total])


def bytes_figure(inventory: Inventory) -> tuple:
    """(figure, alt text): one bar a part as stored, and hatched what it is in bf16."""

    parts = sorted(inventory.parts, key=lambda part: part.bytes)
    unit, word = _unit(inventory.bytes)
    figure = style.new_figure(style.WIDTH, 0.42 * len(parts) + 1.2)
    with style.figure_settings():
        ax = figure.subplots()
        places = range(len(parts))
        stored = ax.barh([p + 0.2 for p in places], [part.bytes / unit for part in parts], 0.36, color=style.ACCENT)
        half = ax.barh([p - 0.2 for p in places], [2 * part.parameters / unit for part in parts], 0.36, color="white")
        for bar in half:
            bar.set(edgecolor=style.NEUTRAL, hatch="////")
        ax.set_yticks(list(places), [_name(part.name) for part in parts])
        for place, part in zip(places, parts, strict=True):
            ax.text(part.bytes / unit, place + 0.2, f" {say_size(part.bytes)}", va="center", fontsize=8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.margins(x=0.12)
        ax.set_xlabel(word)
        ax.legend([stored, half], [tr("As stored"), tr("In bf16")], loc="lower right")
        extra = inventory.config.get("sa2va_lab")
        style.stamp(figure, extra.get("stamp") if isinstance(extra, dict) else None)
    largest = parts[-1]
    values = dict(first=_name(largest.name), size=say_size(largest.bytes), total=say_size(inventory.bytes))
    share = largest.bytes / max(1, inventory.bytes)
    return figure, tr(
        "Bytes by part, as stored and in bf16: {first} is the largest with {size}, {share:.0%} of "
        "{total}; in bf16 the whole is {half}.",
        share=share,
        half=say_size(2 * inventory.parameters),
        **values,
    )


def trained_table(inventory: Inventory) -> Table:
    """Family, LoRA and duplicates of an inventory, a row each."""
    lora, unknown = inventory.lora, tr("not known: give the training config")
    told = tr("none")
    if lora:
        known = {key: f"{lora[key]:g}" if lora[key] else unknown for key in ("rank", "alpha", "scale")}
        told = tr(
            "rank {rank}, alpha {alpha}, scale {scale}; on {targets}", targets=", ".join(lora["targets"]), **known
        )
    twice = inventory.duplicates
    rows = [
        [tr("Family"), inventory.family],
        [tr("Language model"), inventory.language],
        [tr("LoRA"), told],
        [tr("Stored twice (the base has them too)"), f"{twice['parameters']:,} ({say_size(twice['bytes'])})"],
        [tr("sha256 of the headers"), inventory.sha256["headers"]],
    ]
    return Table([tr("What"), tr("In the files")], rows)


def missing_table(inventory: Inventory) -> Table:
    """What inference needs and is not here, and where it usually comes from."""
    rows = [[", ".join(_name(part) for part in m.parts), m.source] for m in inventory.missing]
    columns = [tr("Missing"), tr("Usually comes from")]
    return Table(columns, rows or [[tr("nothing"), "–"]])


def note_table(
    whole: Inventory, finetune: Inventory | None, *, billions: float = 0, gigabytes: float = 0, complete: str = ""
) -> Table:
    """The files' figures beside those that somebody wrote down. 0 and "" stand for nothing noted.

    billions: parameters; gigabytes: 10^9 bytes in fp32; complete: "yes" or "no", of the .pth, or else of the model.
    """
    real_billions, real_bytes = whole.parameters / 1e9, 4 * whole.parameters / 1e9
    small = real_billions < 0.1
    is_whole = (finetune or whole).complete
    yes, no = tr("yes"), tr("no")
    noted = complete.strip().lower() in ("yes", "true", "1", "是")
    rows = [
        _note("inventory_billions", real_billions, billions, digits=4 if small else 2),
        _note("inventory_size_fp32", real_bytes, gigabytes, digits=4 if small else 1),
        [
            tr("The .pth (or this checkpoint) is a complete model"),
            (yes if noted else no) if complete else "–",
            yes if is_whole else no,
            _verdict(noted == is_whole if complete else None),
        ],
    ]
    return Table([say(f"inventory_{key}") for key in ("what", "noted", "found", "verdict")], rows)


def _note(key: str, real: float, noted: float, *, digits: int) -> list[str]:
    agrees = abs(noted - real) <= NEAR * real if noted else None
    return [say(key), f"{noted:.{digits}f}" if noted else "–", f"{real:.{digits}f}", _verdict(agrees)]


def _verdict(agrees: bool | None) -> str:
    if agrees is None:
        return tr("nothing noted")
    return say("inventory_agrees" if agrees else "inventory_differs")


def _name(part: str) -> str:
    return say(f"part_{part}") if f"part_{part}" in TEXTS else part


def _unit(count: int) -> tuple[int, str]:
    return (1 << 30, "GiB") if count >= 1 << 28 else (1 << 20, "MiB")
