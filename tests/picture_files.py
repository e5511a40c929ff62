"""Image files of every kind with the pixels that they have to give, and files that nobody can read."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (6, 9, 3), np.uint8)
GREY = RNG.integers(0, 256, (6, 9), np.uint8)
GREY[0, :2] = 0, 255  # both ends
DEEP = RNG.integers(0, 65536, (6, 9)).astype(np.uint16)
DEEP[0, :2] = 0, 65535
OPACITY = RNG.integers(0, 256, (6, 9), np.uint8)


def on_white(rgb: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """What is seen through, the slow way."""
    share = opacity[..., None] / 255
    return np.rint(rgb * share + 255 * (1 - share)).astype(np.uint8)


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, 2)


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack('>I4s', len(content), kind) + content + struct.pack('>I', zlib.crc32(kind + content))


def png(size: tuple[int, int], depth: int, color: int, rows: bytes, *chunks: bytes) -> bytes:
    """A PNG file of given width and height, from rows of which each begins with its filter, 0."""
    header = chunk(b'IHDR', struct.pack('>IIBBBBB', *size, depth, color, 0, 0, 0))
    data = chunk(b'IDAT', zlib.compress(rows))
    return b''.join([b'\x89PNG\r\n\x1a\n', header, *chunks, data, chunk(b'IEND', b'')])


def tiff(pixels: np.ndarray, bits: int, photometric: int = 1, sample_format: int = 1) -> bytes:
    """An uncompressed TIFF file of any number of channels [H, W, C] whose bytes are given."""
    height, width, channels = pixels.shape[0], pixels.shape[1], pixels.shape[2]
    data = pixels.tobytes()
    entries = [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * channels), (259, 3, [1]), (262, 3, [photometric]),
        (273, 4, [8]), (277, 3, [channels]), (278, 4, [height]), (279, 4, [len(data)]),
        (339, 3, [sample_format] * channels),
    ]  # fmt: skip
    where = 8 + len(data)
    extra_at, extra, table = where + 2 + 12 * len(entries) + 4, b'', b''
    for tag, kind, values in entries:
        packed = struct.pack(f'<{len(values)}{"H" if kind == 3 else "I"}', *values)
        if len(packed) > 4:
            place, extra = struct.pack('<I', extra_at + len(extra)), extra + packed
        else:
            place = packed.ljust(4, b'\0')
        table += struct.pack('<HHI', tag, kind, len(values)) + place
    return b'II*\0' + struct.pack('<I', where) + data + struct.pack('<H', len(entries)) + table + bytes(4) + extra


def by_opencv(suffix: str, array: np.ndarray) -> bytes:
    return cv2.imencode(suffix, array)[1].tobytes()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _kinds() -> dict[str, tuple[bytes, np.ndarray]]:
    picture, grey = Image.fromarray(COLOR), Image.fromarray(GREY)
    rgba = np.dstack([COLOR, OPACITY])
    palette = Image.fromarray(GREY % 3, 'P')
    palette.putpalette([9, 8, 7, 70, 80, 90, 200, 100, 0])
    in_palette = np.array([[9, 8, 7], [70, 80, 90], [200, 100, 0]], np.uint8)[GREY % 3]
    first_is_clear = np.where(GREY % 3 == 0, 0, 255).astype(np.uint8)
    opacities = np.array([0, 100, 255], np.uint8)[GREY % 3]
    deep_rgb = np.dstack([DEEP, DEEP[::-1], DEEP[:, ::-1]])
    deep_rgba = np.dstack([deep_rgb, DEEP])
    rows = b''.join(b'\0' + row.tobytes() for row in deep_rgb.byteswap())
    key = chunk(b'tRNS', struct.pack('>3H', *deep_rgb[0, 0]))
    key_level = chunk(b'tRNS', struct.pack('>H', 65535))
    deep_rows = b''.join(b'\0' + row.tobytes() for row in DEEP.byteswap())
    four_bits = (GREY[:, :8] >> 4).astype(np.uint8)
    four_rows = b''.join(b'\0' + (row[::2] << 4 | row[1::2]).tobytes() for row in four_bits)
    wide = DEEP.astype(np.int64)
    jpeg = encoded(picture, 'JPEG')
    of_jpeg = np.array(Image.open(io.BytesIO(jpeg)))
    cmyk = picture.convert('CMYK')
    other = Image.fromarray(255 - COLOR)
    associated = (rgba[..., :3] // 255 * 255, np.where(OPACITY > 99, 255, 0).astype(np.uint8))
    premultiplied = np.dstack([np.where(associated[1][..., None], COLOR, 0), associated[1]]).astype(np.uint8)
    kinds = {
        'PNG 1 bit': (encoded(Image.fromarray(GREY > 99), 'PNG'), rgb(np.where(GREY > 99, 255, 0))),
        'PNG grey': (encoded(grey, 'PNG'), rgb(GREY)),
        'PNG grey of 4 bits': (png((8, 6), 4, 0, four_rows), rgb(four_bits * 17)),
        'PNG grey of 4 bits, one clear': (
            png((8, 6), 4, 0, four_rows, chunk(b'tRNS', struct.pack('>H', four_bits[0, 0]))),
            rgb(np.where(four_bits == four_bits[0, 0], 255, four_bits * 17)),
        ),
        'PNG grey of 16 bits': (encoded(Image.fromarray(DEEP), 'PNG'), rgb(DEEP >> 8)),
        'PNG grey of 16 bits, one clear': (
            png((9, 6), 16, 0, deep_rows, key_level),
            rgb(np.where(DEEP == 65535, 255, DEEP >> 8)),
        ),
        'PNG grey and opacity': (
            encoded(Image.merge('LA', [grey, Image.fromarray(OPACITY)]), 'PNG'),
            on_white(rgb(GREY), OPACITY),
        ),
        'PNG palette': (encoded(palette, 'PNG'), in_palette),
        'PNG palette, one clear': (encoded(palette, 'PNG', transparency=0), on_white(in_palette, first_is_clear)),
        'PNG palette with opacities': (
            encoded(palette, 'PNG', transparency=bytes([0, 100, 255])),
            on_white(in_palette, opacities),
        ),
        'PNG colour': (encoded(picture, 'PNG'), COLOR),
        'PNG colour, one clear': (
            encoded(picture, 'PNG', transparency=tuple(map(int, COLOR[0, 0]))),
            np.where((COLOR[0, 0] == COLOR).all(2, keepdims=True), 255, COLOR),
        ),
        'PNG colour and opacity': (encoded(Image.fromarray(rgba), 'PNG'), on_white(COLOR, OPACITY)),
        'PNG colour of 16 bits': (by_opencv('.png', deep_rgb[..., ::-1]), deep_rgb >> 8),
        'PNG colour of 16 bits, one clear': (
            png((9, 6), 16, 2, rows, key),
            np.where((deep_rgb >> 8 == deep_rgb[0, 0] >> 8).all(2, keepdims=True), 255, deep_rgb >> 8),
        ),
        'PNG colour and opacity of 16 bits': (
            by_opencv('.png', deep_rgba[..., [2, 1, 0, 3]]),
            on_white(deep_rgb >> 8, DEEP >> 8),
        ),
        'PNG turned': (encoded(picture, 'PNG', exif=turned(6)), np.rot90(COLOR, -1)),
        'PNG animated': (encoded(picture, 'PNG', save_all=True, append_images=[other]), COLOR),
        'TIFF 1 bit': (encoded(Image.fromarray(GREY > 99), 'TIFF'), rgb(np.where(GREY > 99, 255, 0))),
        'TIFF grey of 16 bits': (encoded(Image.fromarray(DEEP), 'TIFF'), rgb(DEEP >> 8)),
        'TIFF grey of 16 bits, big end first': (encoded(Image.fromarray(DEEP.astype('>u2')), 'TIFF'), rgb(DEEP >> 8)),
        'TIFF grey of 16 bits, white is 0': (tiff(DEEP[..., None], 16, photometric=0), rgb(255 - (DEEP >> 8))),
        'TIFF grey of 12 bits': (tiff(np.frombuffer(b'\x00\x0f\xff' * 3, np.uint8).reshape(1, 9, 1), 12), None),
        'TIFF int16': (tiff((DEEP >> 1).astype(np.int16)[..., None], 16, sample_format=2), rgb(DEEP >> 8)),
        'TIFF int32': (encoded(Image.fromarray((wide << 15).astype(np.int32)), 'TIFF'), rgb(DEEP >> 8)),
        'TIFF int32 of 16 bits': (encoded(Image.fromarray(wide.astype(np.int32)), 'TIFF'), rgb(DEEP >> 8)),
        'TIFF int32 of 8 bits': (encoded(Image.fromarray(GREY.astype(np.int32)), 'TIFF'), rgb(GREY)),
        'TIFF uint32': (tiff((wide << 16).astype(np.uint32)[..., None], 32), rgb(DEEP >> 8)),
        'TIFF int8': (tiff((GREY >> 1)[..., None], 8, sample_format=2), rgb((GREY >> 1) * 255.0 // 127)),
        'TIFF floats to 1': (
            encoded(Image.fromarray((GREY / 255).astype(np.float32)), 'TIFF'),
            rgb(GREY),
        ),
        'TIFF floats to 255': (encoded(Image.fromarray(GREY.astype(np.float32)), 'TIFF'), rgb(GREY)),
        'TIFF palette': (encoded(palette, 'TIFF'), in_palette),
        'TIFF colour, compressed': (encoded(picture, 'TIFF', compression='tiff_lzw'), COLOR),
        'TIFF colour and opacity': (encoded(Image.fromarray(rgba), 'TIFF'), on_white(COLOR, OPACITY)),
        'TIFF colour times opacity': (
            encoded(Image.fromarray(premultiplied), 'TIFF', tiffinfo={338: 1}),
            on_white(COLOR, associated[1]),
        ),
        'TIFF colour and opacity of 16 bits': (
            by_opencv('.tiff', deep_rgba[..., [2, 1, 0, 3]]),
            on_white(deep_rgb >> 8, DEEP >> 8),
        ),
        'TIFF CMYK': (encoded(cmyk, 'TIFF'), np.array(cmyk.convert('RGB'))),
        'TIFF CIELAB': (
            encoded(picture.convert('LAB'), 'TIFF'),
            np.array(picture.convert('LAB').convert('RGB')),
        ),
        'TIFF turned': (encoded(picture, 'TIFF', tiffinfo={274: 6}), np.rot90(COLOR, -1)),
        'TIFF of two pages': (encoded(picture, 'TIFF', save_all=True, append_images=[other]), COLOR),
        'JPEG': (jpeg, of_jpeg),
        'JPEG progressive': (encoded(picture, 'JPEG', progressive=True), of_jpeg),
        'JPEG grey': (encoded(grey, 'JPEG', quality=100), None),
        'JPEG CMYK': (encoded(cmyk, 'JPEG'), None),
        'BMP': (encoded(picture, 'BMP'), COLOR),
        'PPM': (encoded(picture, 'PPM'), COLOR),
        'PGM of 16 bits': (encoded(Image.fromarray(DEEP), 'PPM'), rgb(DEEP >> 8)),
        'GIF animated': (encoded(palette, 'GIF', save_all=True, append_images=[other]), in_palette),
        'WebP': (encoded(picture, 'WEBP', lossless=True), COLOR),
        'WebP and opacity': (
            encoded(Image.fromarray(rgba), 'WEBP', lossless=True, exact=True),
            on_white(COLOR, OPACITY),
        ),
        'WebP turned': (encoded(picture, 'WEBP', lossless=True, exif=turned(8)), np.rot90(COLOR)),
        'WebP animated': (encoded(picture, 'WEBP', lossless=True, save_all=True, append_images=[other]), COLOR),
        'JPEG 2000': (encoded(picture, 'JPEG2000'), COLOR),
    }
    for orientation, turn in TURNS.items():
        kinds[f'JPEG turned {orientation}'] = (encoded(picture, 'JPEG', exif=turned(orientation)), turn(of_jpeg))
    for name in [name for name, (_, pixels) in kinds.items() if pixels is None]:
        data = kinds[name][0]
        with Image.open(io.BytesIO(data)) as file:
            if file.mode.startswith('I;16'):
                kinds[name] = data, rgb((np.asarray(file) >> 4).astype(np.uint8))
            else:
                kinds[name] = data, np.array(file.convert('RGB'))
    return {name: (data, pixels.astype(np.uint8)) for name, (data, pixels) in kinds.items()}


TURNS = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}
KINDS = _kinds()


def _put(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data)


def _faults() -> dict[str, tuple[Callable[[Path], None], str]]:
    large = Image.fromarray(RNG.integers(0, 256, (90, 90, 3), np.uint8))
    files = {
        name: encoded(large, name) for name in ('JPEG', 'PNG', 'TIFF', 'BMP', 'GIF', 'WEBP', 'PPM', 'JPEG2000')
    } | {'progressive JPEG': encoded(large, 'JPEG', progressive=True)}
    whole = files['PNG']
    flipped = bytearray(whole)
    flipped[-20] ^= 1  # among the checksums of the last pixels
    nothing = np.full((6, 9), np.nan, np.float32)
    faults = {f'{name} cut off': (_put(data[: len(data) * 3 // 5]), '') for name, data in files.items()}
    return faults | {
        'empty': (_put(b''), 'the file is empty'),
        'text': (_put(b'<html>not found</html>'), 'formats JPEG, PNG'),
        'EPS': (_put(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 6\n%%EndComments\n'), 'formats JPEG, PNG'),
        'PNG without its end': (_put(whole[:-12]), 'truncated'),
        'PNG with a flipped bit': (_put(bytes(flipped)), 'checksum'),
        'PNG of 60000 x 60000': (_put(png((60000, 60000), 1, 0, b'\0' * 1000)), '60000 x 60000 pixels'),
        'int32 below 0': (_put(encoded(Image.fromarray(np.full((6, 9), -1, np.int32)), 'TIFF')), 'values from -1'),
        'floats above 255': (_put(encoded(Image.fromarray(np.full((6, 9), 300.0, np.float32)), 'TIFF')), r'scale them'),
        'NaN': (_put(encoded(Image.fromarray(nothing), 'TIFF')), 'values from nan'),
        'seven channels': (_put(tiff(np.zeros((6, 9, 7), np.uint8), 8)), '7 channels of 8 bits'),
        'doubles': (_put(tiff(np.zeros((6, 9, 1)), 64, sample_format=3)), '1 channels of 64 bits'),
        'a pipe': (os.mkfifo, 'not a regular file'),
        'a folder': (os.mkdir, 'give a file'),
        'nothing': (lambda path: None, 'check the path'),
    }


FAULTS = _faults()
