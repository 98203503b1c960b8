"""What 07_films shows: every frame asked for itself beside films that were asked once and then followed.

`found` is always what `evaluation.sequences.compare_sequences` returned, or None where there is no sequence; everything
here then says so.
"""

from __future__ import annotations

from dataclasses import asdict

from IPython.display import Markdown

from sa2va_lab.datasets.samples import Dataset
from sa2va_lab.evaluation.metrics import pair_up
from sa2va_lab.evaluation.sequences import LEAST_FRAMES, WAYS, Comparison
from sa2va_lab.language import join_sentences, tr
from sa2va_lab.reports.answers import Answer, Metrics, say_sample
from sa2va_lab.runs.read import Run
from sa2va_lab.views import style
from sa2va_lab.views.comparisons import judge_difference, show_difference
from sa2va_lab.views.overlays import panels_figure
from sa2va_lab.views.tables import tabulate

NAMES = {"still": "frame by frame", "tracked": "followed"}
LOOKS = {"still": (style.NEUTRAL, "--", "s"), "tracked": (style.ACCENT, "-", "o")}
MEASURES = {
    "dice": "Dice, all frames",
    "dice_followed": "Dice, frames that the language model did not see",
    "changed": "Share of the mask that changes from frame to frame",
    "seconds": "Seconds a frame",
}
NEIGHBOURS = 4  # frames of a film that are shown beside each other
NOTHING = (
    "Nothing was followed: no sequence of {least} frames or more lies whole in these images, or no model was given."
)


def answer_films(found: Comparison | None) -> Answer:
    """The answer: Dice in both ways, what of it is distinguishable, what was asked and how long it took."""
    if found is None:
        return Answer(tr(NOTHING, least=LEAST_FRAMES), Metrics())
    dice, seconds, asked = found.measures["dice"], found.measures["seconds"], found.asked
    apart = dice.difference
    told = {"still": dice.still, "tracked": dice.tracked, "difference": show_difference(apart)}
    told |= {"sample": say_sample(apart.n_images, apart.n_groups, grouped=True), "threshold": found.threshold}
    said = [
        tr(
            "Followed through {films} films, Dice is {tracked:.3f}; frame by frame it is {still:.3f} (difference "
            "{difference}: {judged}) on {sample}, threshold {threshold:g}.",
            films=asked["tracked"],
            judged=judge_difference(apart),
            **told,
        )
        if apart.n_images
        else tr("Followed through {films} films; no frame has a Dice in both ways.", films=asked["tracked"]),
        tr("The language model was asked {tracked} times instead of {still}.", **asked),
        tr("A frame took {tracked:.2f} s instead of {still:.2f} s.", tracked=seconds.tracked, still=seconds.still),
    ]
    measures = {name: asdict(measure) for name, measure in found.measures.items()}
    numbers = Metrics(n_films=asked["tracked"], n_frames=asked["still"], measures=measures, asked=asked)
    return Answer(join_sentences(said), numbers, stamp=found.stamp)


def ways_table(found: Comparison | None):
    """Each measure in both ways, of the truth where it has it, and the difference with its interval."""
    if found is None:
        return Markdown(tr(NOTHING, least=LEAST_FRAMES))
    rows = [{"name": tr(text)} | vars(found.measures[name]) for name, text in MEASURES.items()]
    asked = {"name": tr("Times that the language model was asked"), **found.asked, "truth": None, "difference": None}
    return tabulate(
        [*rows, asked],
        {
            "What": "name",
            "Frame by frame": "still",
            "Followed": "tracked",
            "Ground truth": "truth",
            "Followed less frame by frame": lambda row: show_difference(row["difference"]),
            "In words": lambda row: judge_difference(row["difference"]) if row["difference"] else "–",
            "N frames": lambda row: row["difference"].n_images if row["difference"] else len(found.table),
        },
    )


def show_courses(found: Comparison | None):
    """Dice along the films, mean of both ways and a thin line a film; or the sentence that there are none."""
    if found is None or not found.measures["dice"].difference.n_images:
        return Markdown(tr(NOTHING, least=LEAST_FRAMES))
    table, means = found.table, {}
    with style.drawing(3.4, stamp=found.stamp) as figure:
        ax = figure.subplots()
        for frame in sorted(set(table.loc[table["shown"], "frame"])):
            ax.axvspan(frame - 0.5, frame + 0.5, color=style.NEUTRAL, alpha=0.1, linewidth=0)
        for way in WAYS:
            colour, line, mark = LOOKS[way]
            for _, rows in table.groupby("video"):
                ax.plot(rows["frame"], rows[f"dice_{way}"], line, color=colour, linewidth=0.8, alpha=0.35)
            means[way] = table.groupby("frame")[f"dice_{way}"].mean()
            ax.plot(means[way], line, marker=mark, markersize=4, color=colour, linewidth=2.2, label=tr(NAMES[way]))
        ax.text(0.6, 0.02, tr("grey: seen by the language model"), fontsize=8, color=style.NEUTRAL)
        ax.set(xlabel=tr("Frame of the sequence"), ylabel=tr("Dice of one image"), ylim=(0, 1))
        ax.set_xlim(0.5, table["frame"].max() + 0.5)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(axis="y")
        ax.legend(loc="lower right")
    ends = {f"{way}_{end}": means[way].iloc[place] for way in WAYS for end, place in (("first", 0), ("last", -1))}
    alt = tr(
        "Mean Dice along {films} films: frame by frame it goes from {still_first:.3f} in the first frame to "
        "{still_last:.3f} in the last, followed from {tracked_first:.3f} to {tracked_last:.3f}; the language model saw "
        "{keep} frames of each.",
        films=found.asked["tracked"],
        keep=found.keep,
        **ends,
    )
    return style.picture(figure, alt, role="films")


def show_strip(found: Comparison | None, runs: dict[str, Run], dataset: Dataset):
    """Neighbouring frames around the one where the two ways differ most in Dice, each way against the ground truth.

    runs: by way. The sentence that there is nothing where there is no such frame.
    """
    apart = None if found is None else (found.table["dice_tracked"] - found.table["dice_still"]).abs()
    if apart is None or not apart.notna().any():
        return Markdown(tr(NOTHING, least=LEAST_FRAMES))
    most = found.table.loc[apart.idxmax()]
    film = found.table[found.table["video"] == most["video"]].reset_index(drop=True)
    place = int(film.index[film["id"] == most["id"]][0])
    begin = max(min(place - NEIGHBOURS // 2, len(film) - NEIGHBOURS), 0)
    frames = film.iloc[begin : begin + NEIGHBOURS]
    panels = []
    for way in WAYS:
        for _, frame in frames.iterrows():
            sample = dataset[frame["id"]]
            shown = {"way": tr(NAMES[way]), "frame": frame["frame"], "dice": frame[f"dice_{way}"]}
            title = tr("{way}, frame {frame}: {dice:.3f}", **shown)
            panels.append((title, sample.image, pair_up(runs[way].prediction(sample.id), sample), found.threshold))
    figure = panels_figure(panels, across=len(frames), stamp=found.stamp)
    alt = tr(
        "{count} frames of a film around {id}, where the ways differ most: Dice {still:.3f} frame by frame, "
        "{tracked:.3f} followed; each mask is drawn against the ground truth.",
        count=len(frames),
        id=most["id"],
        still=most["dice_still"],
        tracked=most["dice_tracked"],
    )
    return style.picture(figure, alt)
