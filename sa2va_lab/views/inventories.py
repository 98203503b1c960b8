"""What 00_inspect shows of an inventory: where the gigabytes sit, what was trained, what is missing, what notes say."""

from __future__ import annotations

import numpy as np

from sa2va_lab.language import join_sentences, join_words, tr
from sa2va_lab.loading.inventory import Inventory
from sa2va_lab.loading.parts import Part
from sa2va_lab.paths import shown_name
from sa2va_lab.reports.answers import Answer, Metrics, say_size
from sa2va_lab.views import style
from sa2va_lab.views.tables import Table, show, tabulate, tabulate_facts

NEAR = 0.02  # a noted figure within 2 % of the files' agrees with them: notes are rounded
PARTS = {
    "vision": "Vision tower",
    "projector": "Projector",
    "embed_tokens": "Token embeddings",
    "lm_head": "Output head",
    "language": "Language model layers",
    "sam2_encoder": "SAM2 image encoder",
    "sam2_decoder": "SAM2 mask decoder",
    "sam2_prompt": "SAM2 prompt encoder",
    "sam2_memory": "SAM2 memory (video)",
    "seg_projection": "[SEG] projection",
    "lora": "LoRA",
    "other": "Other",
}


def answer_inventory(whole: Inventory, finetune: Inventory | None = None) -> Answer:
    """The answer: size and whether anything is missing. whole: the model that would run; finetune: the .pth in it."""
    size, half = say_size(whole.bytes), say_size(2 * whole.parameters)
    said = "{parameters:,} parameters: {stored} as stored, {half} in bf16. Nothing is missing for inference."
    if not whole.complete:
        said = "{parameters:,} parameters: {stored} as stored. This does not run yet; missing: {missing}."
    missing = join_words(_name(part) for m in whole.missing for part in m.parts)
    sentences = [tr(said, parameters=whole.parameters, stored=size, half=half, missing=missing)]
    if finetune is not None:
        said = "The fine-tune {file} holds {parameters:,} parameters ({stored}); alone it is no model."
        own = dict(parameters=finetune.parameters, stored=say_size(finetune.bytes))
        sentences.append(tr(said, file=shown_name("fine-tune", finetune.path), **own))
    metrics = Metrics(inventory=whole.to_dict(), finetune=finetune.to_dict() if finetune else None)
    return Answer(join_sentences(sentences), metrics, stamp=_stamp(whole))


def part_table(inventory: Inventory) -> Table:
    """Tensors, parameters, bytes and dtypes by part, and where each comes from."""
    tensors = sum(part.tensors for part in inventory.parts)
    return tabulate(
        [*inventory.parts, Part("Together", tensors, inventory.parameters, inventory.bytes, {})],
        {
            "Part": lambda part: _name(part.name),
            "Tensors": "tensors",
            "Parameters": "parameters",
            "As stored": lambda part: say_size(part.bytes),
            "In bf16": lambda part: say_size(2 * part.parameters),
            "Stored as": lambda part: ", ".join(part.dtypes),
            "Comes from": lambda part: ", ".join(part.origin),
        },
    )


def bytes_figure(inventory: Inventory) -> tuple:
    """(figure, alt text): one bar a part as stored, and hatched what it is in bf16."""
    parts = sorted(inventory.parts, key=lambda part: part.bytes)
    unit, word = style.memory_unit(inventory.bytes)
    with style.drawing(0.42 * len(parts) + 1.2, stamp=_stamp(inventory)) as figure:
        ax, places = figure.subplots(), np.arange(len(parts))
        stored = ax.barh(places + 0.2, [part.bytes / unit for part in parts], 0.36, color=style.ACCENT)
        hatched = dict(color="white", edgecolor=style.NEUTRAL, hatch="////")
        half = ax.barh(places - 0.2, [2 * part.parameters / unit for part in parts], 0.36, **hatched)
        ax.set_yticks(places, [_name(part.name) for part in parts])
        ax.bar_label(stored, [say_size(part.bytes) for part in parts], padding=3, fontsize=8)
        ax.margins(x=0.12)
        ax.set_xlabel(word)
        ax.legend([stored, half], [tr("As stored"), tr("In bf16")], loc="lower right")
    largest = parts[-1]
    return figure, tr(
        "Bytes by part, as stored and in bf16: {first} is the largest with {size}, {share:.0%} of "
        "{total}; in bf16 the whole is {half}.",
        first=_name(largest.name),
        size=say_size(largest.bytes),
        share=largest.bytes / max(1, inventory.bytes),
        total=say_size(inventory.bytes),
        half=say_size(2 * inventory.parameters),
    )


def trained_table(inventory: Inventory) -> Table:
    """Family, LoRA and duplicates of an inventory, a row each."""
    lora, told = inventory.lora, tr("none")
    if lora:
        unknown = tr("not known: give the training config")
        known = {key: f"{lora[key]:g}" if lora[key] else unknown for key in ("rank", "alpha", "scale")}
        said = "rank {rank}, alpha {alpha}, scale {scale}; on {targets}"
        told = tr(said, targets=", ".join(lora["targets"]), **known)
    twice = inventory.duplicates
    facts = {
        "Family": inventory.family,
        "Language model": tr(inventory.language),
        "LoRA": told,
        "Stored twice (the base has them too)": f"{twice['parameters']:,} ({say_size(twice['bytes'])})",
        "sha256 of the headers": inventory.sha256["headers"],
    }
    return tabulate_facts(facts, "What", "In the files")


def missing_table(inventory: Inventory) -> Table:
    """What inference needs and is not here, and where it usually comes from."""
    columns = {"Missing": lambda missing: ", ".join(_name(part) for part in missing.parts)}
    columns["Usually comes from"] = lambda missing: tr(missing.source)
    return tabulate(inventory.missing, columns, nothing="nothing")


def note_table(
    whole: Inventory, finetune: Inventory | None, *, billions: float = 0, gigabytes: float = 0, complete: str = ""
) -> Table:
    """The files' figures beside those that somebody wrote down. 0 and "" stand for nothing noted.

    billions: parameters; gigabytes: 10^9 bytes in fp32; complete: "yes" or "no", of the .pth, or else of the model.
    """
    small, is_whole = whole.parameters < 1e8, (finetune or whole).complete
    verdict = {None: tr("nothing noted"), True: tr("agrees"), False: tr("does not agree")}
    facts = {}
    for what, real, noted, form in (
        ("Parameters of the model, billions", whole.parameters / 1e9, billions, ".4f" if small else ".2f"),
        ("Size in fp32, GB (10⁹ bytes)", 4 * whole.parameters / 1e9, gigabytes, ".4f" if small else ".1f"),
    ):
        agrees = abs(noted - real) <= NEAR * real if noted else None
        facts[what] = [show(noted or None, form), show(real, form), verdict[agrees]]
    said = complete.strip().lower() in ("yes", "true", "1", "是") if complete else None
    shown = {None: "–", True: tr("yes"), False: tr("no")}
    answers = [shown[said], shown[is_whole], verdict[said == is_whole if complete else None]]
    facts["The .pth (or this checkpoint) is a complete model"] = answers
    return tabulate_facts(facts, "What", "In your notes", "In the files", "Verdict")


def _name(part: str) -> str:
    return tr(PARTS.get(part, part))


def _stamp(inventory: Inventory) -> str | None:
    extra = inventory.config.get("sa2va_lab")
    return extra.get("stamp") if isinstance(extra, dict) else None
