"""From a study to the clinic: pack a trained network, segment films with it, export, archive and serve."""
