"""PNG files with every checksum verified, reduced to the chunks that pixels depend on.

Pillow stops after the last row: it looks at no checksum of pixels, and what follows them may be damaged or missing.
"""

import io
import struct
import zlib
from typing import BinaryIO

from tokenlabel.image_files.unreadable import UnreadableImage

SIGNATURE = b'\x89PNG\r\n\x1a\n'
# Of others, such as texts and colour profiles, nothing here makes use; their contents may be bombs.
KEPT = (b'IHDR', b'PLTE', b'tRNS', b'eXIf', b'IDAT', b'IEND')
GREY, COLOR, GREY_AND_OPACITY = 0, 2, 4  # types of colour
PIECE = 2**20  # bytes


def verified_png(stream: BinaryIO, pixels: bool = True) -> io.BytesIO:
    """The file without chunks that pixels do not depend on; of an animation, the picture for viewers without it.

    Transparent grey levels and colours are given in 8 bits, as Pillow compares them with pixels.

    Args:
        stream: the file, from its beginning.
        pixels: False leaves out the pixels, without reading them.

    Raises:
        UnreadableImage: it is cut off, or a checksum is wrong.
    """
    kept = {kind: [] for kind in KEPT}
    stream.seek(len(SIGNATURE))
    kind = b''
    while kind != b'IEND':
        head = stream.read(8)
        if len(head) < 8:
            raise UnreadableImage('the PNG file is truncated')
        size, kind = struct.unpack('>I4s', head)
        if kind == b'IDAT' and not pixels:
            stream.seek(size + 4, io.SEEK_CUR)
        else:
            content = _content(stream, size, kind, keep=kind in KEPT)
            if kind in KEPT:
                kept[kind].append(content)
    if kept[b'tRNS'] and len(header := b''.join(kept[b'IHDR'][:1])) >= 10:
        kept[b'tRNS'] = [_key_in_8_bits(kept[b'tRNS'][0], depth=header[8], color=header[9])]
    chunks = [_chunk(kind, content) for kind, contents in kept.items() for content in contents]
    return io.BytesIO(b''.join([SIGNATURE, *chunks]))


def _content(stream: BinaryIO, size: int, kind: bytes, keep: bool) -> bytes:
    """The chunk's bytes where they are kept, else b''."""
    pieces, crc = [], zlib.crc32(kind)
    while size:
        piece = stream.read(min(size, PIECE))
        if not piece:
            raise UnreadableImage('the PNG file is truncated')
        size -= len(piece)
        crc = zlib.crc32(piece, crc)
        if keep:
            pieces.append(piece)
    stored = stream.read(4)
    if len(stored) < 4:
        raise UnreadableImage('the PNG file is truncated')
    if stored != struct.pack('>I', crc):
        raise UnreadableImage(f'the PNG file is damaged, the checksum of its part {kind.decode("latin-1")!r} is wrong')
    return b''.join(pieces)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack('>I4s', len(content), kind) + content + struct.pack('>I', zlib.crc32(content, zlib.crc32(kind)))


def _key_in_8_bits(key: bytes, depth: int, color: int) -> bytes:
    """The transparent grey level or colour as Pillow scales pixels: grey of 2 and 4 bits up, colour of 16 bits down."""
    numbers = [number for (number,) in struct.iter_unpack('>H', key[: len(key) // 2 * 2])]
    if color == GREY and depth in (2, 4):
        numbers = [number % 2**depth * 255 // (2**depth - 1) for number in numbers]
    elif color == COLOR and depth == 16:
        numbers = [number >> 8 for number in numbers]
    else:
        return key
    return struct.pack(f'>{len(numbers)}H', *numbers)
