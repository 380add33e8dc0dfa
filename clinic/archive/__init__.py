"""Archiving: the regions around lesions, losslessly, in new objects that hold nothing else of a film. No torch."""
