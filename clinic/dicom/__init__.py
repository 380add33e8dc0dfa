"""DICOM objects about a film: segmentation, probability map, report, presentation state. No torch."""
