"""An encoder for every image encoding that the product accepts, with the expected pixels, metadata and warnings of each file.

It shares no code with the product's reader, nor its TIFF library, so that neither can repeat a mistake of the other.
"""

from tests.images.cells import cell
from tests.images.encodings import Encoding
from tests.images.generator import encoding_strategy, encodings
from tests.images.written import Written, written

__all__ = ["Encoding", "Written", "cell", "encoding_strategy", "encodings", "written"]
