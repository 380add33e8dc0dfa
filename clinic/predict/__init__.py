"""Predicting: films in; masks on the films' own grid, lesions, pictures and DICOM objects out."""
