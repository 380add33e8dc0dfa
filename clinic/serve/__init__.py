"""The service: films in over HTTP (DICOMweb STOW-RS), segmentations and reports out; nothing is kept."""
