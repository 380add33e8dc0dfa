"""MODEL_CARD.md: a model for people, and the block of data before it that Hugging Face reads.

Sections after the Model Facts label (Sendak et al., npj Digital Medicine 2020): summary, how it works, how well, what
it is for and what not, warnings, limits. Figures come from the trial alone; what was not measured is not claimed.
"""

from __future__ import annotations

from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from trainables.model.info import ModelInfo

SOURCES = {
    "phantom": "phantoms: films that this project makes itself, without any patient",
    "cbis_ddsm": "CBIS-DDSM (TCIA, DOI 10.7937/K9/TCIA.2016.7O02S9CY), digitised film mammograms",
    "pairs": "a data set of one's own: images with masks",
}
VIEWS = {
    "whole": "whole films, cut to the breast",
    "lesion": "crops around a lesion that is already found",
}
MEASURES = {"dice": "Dice", "iou": "IoU"}
FURTHER = {
    "dice_pooled": "Dice of all pixels together",
    "sensitivity": "share of the lesion's pixels that is marked",
    "hd95_px": "Hausdorff distance, 95th percentile, px of the sample",
    "hd95_mm": "Hausdorff distance, 95th percentile, mm",
    "lesions_found": "share of the lesions that is marked",
    "false_positives": "false marks an image",
}
"""Measures of the test images beside `MEASURES`, as the card calls them."""
PHANTOM_WARNING = "It was trained on phantoms and has never seen a patient: of no use on real mammograms."
LESION_WARNING = "On a whole film it marks healthy tissue: it must be given the lesion's box."


def model_card(info: ModelInfo, measures: dict[str, dict[str, Any]], *, extra: str = "") -> str:
    """The text of MODEL_CARD.md.

    Args:
        info: the model's.
        measures: of `metrics.json`.
        extra: further sections in Markdown, e.g. the table of exported variants.
    """
    parts = [f"---\n{_front_matter(info, measures)}\n---", f"# {info.name}", _summary(info), _how(info)]
    parts += [_how_well(info, measures), _uses(info), _limits(info), extra.strip(), _facts(info)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(info: ModelInfo, measures: dict[str, dict[str, Any]]) -> str:
    test = measures.get("test", {})
    results = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=info.data.source,
            dataset_name=f"{info.data.source} ({info.preprocessing.field_of_view} view)",
            dataset_split="test",
            dataset_revision=info.data.fingerprint[:16],
            metric_type=name,
            metric_name=f"{title} (hard, per image, mean)",
            metric_value=round(float(test[name]), 4),
        )
        for name, title in MEASURES.items()
        if name in test
    ]
    data = ModelCardData(
        license="apache-2.0",
        library_name="segmentation-models-pytorch",
        pipeline_tag="image-segmentation",
        tags=["mammography", "medical", "breast-lesion-segmentation", info.network.encoder],
        metrics=list(MEASURES),
        model_name=info.name if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def _summary(info: ModelInfo) -> str:
    return (
        f"Gives each pixel of a mammogram the probability that it belongs to a lesion. {info.network.decoder} "
        f"with the encoder {info.network.encoder}, {info.network.parameters / 1e6:.2f} million parameters, "
        f"for {VIEWS[info.preprocessing.field_of_view]}. A research model: no medical device, not to decide about "
        "a patient."
    )


def _how(info: ModelInfo) -> str:
    steps = info.preprocessing
    shaped = [
        "cut to the breast's box" if steps.crop_to_breast and steps.field_of_view == "whole" else "",
        f"cut to a square around the lesion with a margin of {steps.lesion_margin:g} of its size"
        if steps.field_of_view == "lesion"
        else "",
        "mirrored so that the chest wall is on the left" if steps.orient else "",
        f"normalised with {steps.normalisation}" + (" by the breast's own grey values" * (steps.window == "breast")),
        f"shrunk to {steps.size_px} x {steps.size_px} px with its aspect kept",
    ]
    lines = "\n".join(f"- {step}" for step in shaped if step)
    return (
        f"## How it works\n\nA film is\n\n{lines}\n\nThe network gives one probability a pixel. It is enlarged to the "
        f"film's own pixels and cut at {info.threshold:g}."
    )


def _how_well(info: ModelInfo, measures: dict[str, dict[str, Any]]) -> str:
    if not measures:
        return "## How well\n\nNot measured."
    counts, intervals = info.data.samples, measures.get("test", {}).get("intervals", {})
    lines = ["## How well", "", "| split | images | Dice | IoU |", "|---|---:|---:|---:|"]
    for split in ("val", "test"):
        if found := measures.get(split):
            sure = intervals if split == "test" else {}
            cells = [_with_interval(found[name], *sure.get(name, (None, None))) for name in MEASURES]
            lines.append(f"| {split} | {found.get('images', counts.get(split, ''))} | {' | '.join(cells)} |")
    lines += ["", f"Hard, at {info.threshold:g}, per image, then averaged, at {info.preprocessing.size_px} px."]
    lines += ["The epoch was chosen on `val`, which flatters that row; `test` was measured once."]
    if intervals:
        lines += ["In brackets: the 95 % interval, by patient."]
    return "\n".join([*lines, *_further(measures.get("test", {})), *_for_whom(measures.get("test", {}))])


def _further(test: dict[str, Any]) -> list[str]:
    """The other measures of the test images, one a line."""
    intervals = test.get("intervals", {})
    rows = [(FURTHER[name], name, value) for name, value in test.get("measures", {}).items() if name in FURTHER]
    if not rows:
        return []
    lines = [
        f"| {title} | {_with_interval(value, *intervals.get(name, (None, None)))} |" for title, name, value in rows
    ]
    return ["", "| on `test` | |", "|---|---:|", *lines]


def _for_whom(test: dict[str, Any]) -> list[str]:
    """The mean Dice of each group of test images."""
    lines = [
        f"| {name} | {row['group']} | {row['images']} | {row['patients']} | "
        f"{_with_interval(row['dice'], row['low'], row['high'])} |"
        for name, rows in test.get("groups", {}).items()
        for row in rows
    ]
    if not lines:
        return []
    return ["", "| by | group | images | patients | Dice |", "|---|---|---:|---:|---:|", *lines]


def _with_interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if low is None or high is None else f"{value:.4f} ({low:.3f} to {high:.3f})"


def _uses(info: ModelInfo) -> str:
    warnings = []
    if info.data.source == "phantom":
        warnings.append(PHANTOM_WARNING)
    if info.preprocessing.field_of_view == "lesion":
        warnings.append(LESION_WARNING)
    warned = "".join(f"\n- **{warning}**" for warning in warnings)
    return (
        "## What it is for\n\n- Research on segmentation, and drafts of masks that a person accepts, redraws or "
        "rejects.\n\n## What it is not for\n\n- Diagnosis, screening, triage, or any decision about a patient.\n"
        "- Detection: that it marks nothing does not mean that there is nothing.\n"
        f"- Tomosynthesis, magnification and spot views, ultrasound, MRI, breasts with implants.{warned}"
    )


def _limits(info: ModelInfo) -> str:
    return (
        "## Limits\n\n"
        f"- At {info.preprocessing.size_px} px the smallest findings are a few pixels wide, or vanish.\n"
        "- Its probabilities are not calibrated.\n"
        "- It was measured on the data named below alone; other scanners, sites and patients were not tried."
    )


def _facts(info: ModelInfo) -> str:
    data = info.data
    counts = ", ".join(f"{count} {split}" for split, count in data.samples.items())
    patients = ", ".join(f"{count} {split}" for split, count in data.patients.items())
    versions = ", ".join(f"{name} {version}" for name, version in info.versions.items())
    return "\n".join(
        [
            "## Facts",
            "",
            f"- Data: {SOURCES.get(data.source, data.source)}; images: {counts}; patients: {patients or 'not known'}",
            f"- Data's fingerprint: `{data.fingerprint}`",
            f"- Study: {info.study or 'none'}; trial {info.trial}" + (f", epoch {info.epoch}" if info.epoch else ""),
            f"- Weights' SHA-256: `{info.weights_sha256}`",
            f"- Packed {info.created_at} with {versions}",
        ]
    )
