"""DICOM files in, Parquet shards of samples out."""
