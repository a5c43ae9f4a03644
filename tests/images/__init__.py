"""Every encoding of an image that the product accepts: files, the pixels that they mean, and what is to be said of them.

Nothing here uses the product's reader or its libraries for TIFF: a mistake of theirs shall not be repeated.
"""

from tests.images.cells import cell
from tests.images.encodings import Encoding
from tests.images.generator import encoding_strategy, encodings
from tests.images.written import Written, written

__all__ = ["Encoding", "Written", "cell", "encoding_strategy", "encodings", "written"]
