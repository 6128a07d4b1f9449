"""Image files: which there are, and their pixels as tensors.

There is one reader, :func:`read_picture`; :func:`read_image` and :func:`read_pixels` hand on its pixels. Pictures are
read upright (EXIF and TIFF orientation are applied), and 16 bits stay exact.
"""

__all__ = [
    "SUFFIXES",
    "ImageFolder",
    "Picture",
    "center_crop",
    "display_name",
    "find_images",
    "find_partners",
    "fit_to_multiple",
    "image_folders",
    "luminance",
    "read_image",
    "read_picture",
    "read_pixels",
    "read_size",
    "unique_names",
]

from macattr.image_files.folder import ImageFolder
from macattr.image_files.pictures import Picture, read_picture, read_size
from macattr.image_files.search import (
    SUFFIXES,
    display_name,
    find_images,
    find_partners,
    image_folders,
    unique_names,
)
from macattr.image_files.tensors import center_crop, fit_to_multiple, luminance, read_image, read_pixels
