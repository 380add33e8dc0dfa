"""`Architecture`: what of a configuration decides the shape of its network. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass

from trainables.config import PAPER_TO_SMP, TrialConfig


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network before its weights. The defaults are the paper's U-Net; the fields are explained in `TrialConfig`."""

    encoder: str
    """One of the paper's five names, a name of smp, or `tu-<timm name>`."""
    decoder: str = "unet"
    """An smp architecture: `unet`, `fpn`, ..."""
    decoder_norm: str = "batchnorm"
    """`batchnorm`, `layernorm`, `instancenorm` or `identity`, where the decoder has the choice."""
    encoder_depth: int = 5
    """Halvings of the image, 3 to 5, where the decoder has the choice."""
    decoder_width: float = 1.0
    """Factor of the decoder's channels, a multiple of 0.25, where it has the choice."""
    decoder_attention: str = "none"
    """`none` or `scse`, where the decoder has the choice."""
    image_size_px: int | None = None
    """Height and width of the images; None: any, and 224 where a size is needed."""
    shrunk_to_px: int | None = None
    """Height and width to which the network shrinks its images first; None: it sees them as they are."""

    @classmethod
    def of(cls, config: TrialConfig, image_size_px: int) -> Architecture:
        """The architecture of a configuration.

        Args:
            config: the trial's.
            image_size_px: height and width of the samples.
        """
        return cls(
            encoder=config.encoder,
            decoder=config.decoder,
            decoder_norm=config.decoder_norm,
            encoder_depth=config.encoder_depth,
            decoder_width=config.decoder_width,
            decoder_attention=config.decoder_attention,
            image_size_px=image_size_px,
            shrunk_to_px=None if config.image_size_px == image_size_px else config.image_size_px,
        )

    @property
    def smp_encoder(self) -> str:
        """The encoder by smp's name."""
        return PAPER_TO_SMP.get(self.encoder, self.encoder)

    @property
    def size_px(self) -> int:
        """The image size, or the paper's where none is given."""
        return self.image_size_px or 224

    @property
    def seen_px(self) -> int | None:
        """The size that the encoder sees; encoders with a fixed size (ViT, Swin) are made for it."""
        return self.shrunk_to_px or self.image_size_px
