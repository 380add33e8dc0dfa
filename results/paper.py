"""The figures that the paper prints, to stand beside ours.

L. Glišić, I. Berković, B. Radulović: "Optimization and Construction of a Deep Learning Model for Breast Cancer
Segmentation", tables II and III. The names are the project's (`trainables.config.PAPER_ENCODERS`).

What to know before comparing: the paper trains on CBIS-DDSM resized to 224 x 224, names neither the split nor the field
of view, and gives training times without a unit. Its Dice and IoU cannot both be means over the same masks: the mean
Dice is at most 2 IoU / (1 + IoU) of the mean IoU (Jensen), and every row of table II exceeds that by 0.016 or more, as
does InceptionV3 in table III. So the two columns were computed in different ways.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """One row of a table of the paper."""

    parameters: str
    """As printed, e.g. `35.05M`."""
    dice: float
    iou: float
    time: float | None = None
    """Training time as printed; the paper gives no unit."""

    @property
    def largest_dice(self) -> float:
        """The largest mean Dice that goes with this mean IoU: 2 IoU / (1 + IoU)."""
        return 2 * self.iou / (1 + self.iou)


TABLE_II = {
    "seresnet50": PaperRow(parameters="35.05M", dice=0.6642, iou=0.4640, time=3.4),
    "inceptionv3": PaperRow(parameters="29.90M", dice=0.6544, iou=0.4568, time=3.1),
    "densenet121": PaperRow(parameters="12.06M", dice=0.6409, iou=0.4256, time=3.6),
    "mobilenet": PaperRow(parameters="8.31M", dice=0.6498, iou=0.4106, time=1.6),
    "vgg19": PaperRow(parameters="29.06M", dice=0.4182, iou=0.2515, time=2.9),
}
"""Table II, "Neural architecture search (NAS) performance"."""

TABLE_III = {
    "vgg19": PaperRow(parameters="29.06M", dice=0.822, iou=0.708),
    "inceptionv3": PaperRow(parameters="29.90M", dice=0.879, iou=0.759),
    "seresnet50": PaperRow(parameters="29.90M", dice=0.836, iou=0.717),
}
"""Table III, "Average metrics of the model on the validation set"; its 29.90M for SEResNet50 is 35.05M in table II."""
