"""Model packages: a folder or zip that is a bioimage.io model description with our part under ``config.im2im``."""

from im2im_core.bundle.metadata import Author, BundleMetadata, Citation
from im2im_core.bundle.package import Bundle, export_zip, open_bundle

__all__ = ["Author", "Bundle", "BundleMetadata", "Citation", "export_zip", "open_bundle"]
