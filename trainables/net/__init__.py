"""The network: encoders, decoders, pretrained weights."""
