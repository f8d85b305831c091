"""Model packages: a folder or zip that is a bioimage.io model description with our part under ``config.im2im``."""

from im2im_core.bundle.metadata import Author, BundleMetadata, Citation
from im2im_core.bundle.package import Bundle, open_bundle

__all__ = ["Author", "Bundle", "BundleMetadata", "Citation", "open_bundle"]
