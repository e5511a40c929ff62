"""Verifies all checksums of PNG files and removes the chunks that pixels do not depend on.

Pillow does not check the checksums of pixels and stops after the last row, so that the rest may be damaged or missing.
"""

import io
import struct
import zlib
from typing import BinaryIO

from tokenlabel.image_files.unreadable import UnreadableImage

SIGNATURE = b'\x89PNG\r\n\x1a\n'
# Other chunks, such as texts and colour profiles, are not used, and may be decompression bombs.
KEPT = (b'IHDR', b'PLTE', b'tRNS', b'eXIf', b'IDAT', b'IEND')
GREY, COLOR, GREY_AND_OPACITY = 0, 2, 4  # colour types in the header
PIECE = 2**20  # bytes


def verified_png(stream: BinaryIO, pixels: bool = True) -> io.BytesIO:
    """A copy of a PNG file with only the `KEPT` chunks. An animation is reduced to its default image.

    Transparent grey levels and colours are converted to 8 bits, because Pillow compares them with 8-bit pixels.

    Args:
        stream: the file, seekable.
        pixels: whether to include the pixels; if False, they are not read.

    Raises:
        UnreadableImage: the file is truncated, or a checksum is wrong.
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
    """Content of a chunk if `keep`, else b''. Verifies the checksum."""
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
        raise UnreadableImage(f'the PNG file is damaged, the checksum of chunk {kind.decode("latin-1")!r} is wrong')
    return b''.join(pieces)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack('>I4s', len(content), kind) + content + struct.pack('>I', zlib.crc32(content, zlib.crc32(kind)))


def _key_in_8_bits(key: bytes, depth: int, color: int) -> bytes:
    """The transparent grey level or colour, scaled to 8 bits as Pillow scales the pixels."""
    numbers = [number for (number,) in struct.iter_unpack('>H', key[: len(key) // 2 * 2])]
    if color == GREY and depth in (2, 4):
        numbers = [number % 2**depth * 255 // (2**depth - 1) for number in numbers]
    elif color == COLOR and depth == 16:
        numbers = [number >> 8 for number in numbers]
    else:
        return key
    return struct.pack(f'>{len(numbers)}H', *numbers)
