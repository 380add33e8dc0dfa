"""A report of measurements (DICOM SR, TID 1500): one group a lesion, which refers to its segment and to the film."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import highdicom as hd
from highdicom.seg import Segmentation
from highdicom.sr import Measurement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from clinic.dicom.source import MANUFACTURER, Maker

OWN = "99MAMMOSEARCH"
MEAN_PROBABILITY = Code("mean_probability", OWN, "Mean probability of a lesion")
LESION_COUNT = Code("lesion_count", OWN, "Number of regions marked")
PIXELS = Code("{pixels}", "UCUM", "pixels")
COUNT = Code("{count}", "UCUM", "count")
NO_UNITS = Code("1", "UCUM", "no units")
LANGUAGE = Code("en", "RFC5646", "English")


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What is said of one segment."""

    label: str
    segment: int
    """Number of the segment, from 1; frames and segments have the same numbers here."""
    area_px: float
    mean_probability: float
    area_mm2: float | None
    diameter_mm: float | None
    """Of the longest axis; None, like the area, where the film's spacing is not known."""


def report(source: Dataset, segments: Segmentation, findings: Sequence[Findings], maker: Maker) -> Dataset:
    """The measurements of a film's lesions as a Comprehensive SR.

    Args:
        source: from `completed`.
        segments: the film's segmentation.
        findings: one for each segment; none where nothing was marked.
        maker: who measured.
    """
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=maker.uid(source, "observer"),
        name=f"{MANUFACTURER} {maker.model}"[:64],
        manufacturer_name=MANUFACTURER,
        model_name=maker.model[:64],
        serial_number=maker.serial,
    )
    observer = hd.sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    groups = [_whole(source, findings, maker), *(_group(source, segments, finding, maker) for finding in findings)]
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.SCT.Mammography,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=hd.sr.LanguageOfContentItemAndDescendants(LANGUAGE),
    )
    made = hd.sr.ComprehensiveSR(
        evidence=[source, segments],
        content=content[0],
        series_instance_uid=maker.uid(source, "report series"),
        series_number=102,
        sop_instance_uid=maker.uid(source, "report"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description="MammoSearch measurements",
    )
    _drop_frame_numbers(made)
    return made


def _whole(source: Dataset, findings: Sequence[Findings], maker: Maker) -> Dataset:
    """What holds for the film as a whole: how many regions were marked, none included."""
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=maker.uid(source, "film"), identifier="Film"),
        source_images=[hd.sr.SourceImageForMeasurementGroup.from_source_image(source)],
        measurements=[Measurement(LESION_COUNT, len(findings), COUNT)],
    )


def _group(source: Dataset, segments: Segmentation, finding: Findings, maker: Maker) -> Dataset:
    segment = hd.sr.ReferencedSegmentationFrame(
        sop_class_uid=segments.SOPClassUID,
        sop_instance_uid=segments.SOPInstanceUID,
        frame_number=finding.segment,
        segment_number=finding.segment,
        source_image=hd.sr.SourceImageForSegmentation.from_source_image(source),
    )
    measurements = [
        Measurement(codes.SCT.Area, finding.area_px, PIXELS),
        Measurement(MEAN_PROBABILITY, round(finding.mean_probability, 4), NO_UNITS),
    ]
    if finding.area_mm2 is not None:
        measurements.append(Measurement(codes.SCT.Area, round(finding.area_mm2, 2), codes.UCUM.SquareMillimeter))
    if finding.diameter_mm is not None:
        measurements.append(Measurement(codes.SCT.Diameter, round(finding.diameter_mm, 2), codes.UCUM.Millimeter))
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=maker.uid(source, f"lesion {finding.segment}"), identifier=finding.label
        ),
        referenced_segment=segment,
        finding_type=codes.SCT.Lesion,
        finding_sites=[hd.sr.FindingSite(anatomic_location=codes.SCT.Breast)],
        measurements=measurements,
        algorithm_id=hd.sr.AlgorithmIdentification(name=f"{MANUFACTURER} {maker.model}"[:64], version=maker.version),
    )


def _drop_frame_numbers(made: Dataset) -> None:
    """A reference has segment numbers or frame numbers, not both (PS3.3, table 10-3); highdicom writes both."""
    for element in made.iterall():
        if element.VR == "SQ":
            for item in element.value:
                if "ReferencedSegmentNumber" in item and "ReferencedFrameNumber" in item:
                    del item.ReferencedFrameNumber
