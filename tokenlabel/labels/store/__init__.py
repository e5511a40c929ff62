"""The label store: top-k score maps of many images in one directory, read by memory map, written by many processes.

Files, for `n` images and a map of `[k, S, S]` scores and class ids each:

    meta.json            format version, annotator, classes, grid, k, view rule, layout; after the end also what was
                         skipped and a SHA-256 of every other file; last a SHA-256 of all of this
    keys.npy             bytes [n], UTF-8, zero-padded, sorted: posix paths of the images below their folder
    scores-00000.npy     float16 [m, k, S, S], logits, best first
    classes-00000.npy    uint16, or uint32 above 65,536 classes, [m, k, S, S]
    sizes-00000.npy      uint32 [m, 2], width and height of the image in pixels; (0, 0) says that it has no map
    progress-00000       while writing: one byte per batch that is safely on disk; locked by the process at work on it
    lock                 while writing: locked by the process that begins or finalises the store

A shard is a fixed range of the sorted keys, cut into fixed batches. Shards and batches follow from the image list
alone, so a finished store has the same bytes whoever wrote it, in however many attempts.

The view rule (`tokenlabel.labels.view_rule`) says what part of its image a map covers; together with the image's size
it gives the map's View.
"""

from tokenlabel.labels.store.keys import Keys, encode_keys, image_keys
from tokenlabel.labels.store.reader import LabelMap, LabelStore
from tokenlabel.labels.store.writer import DEFAULT_BATCH_SIZE, LabelWriter

__all__ = ['DEFAULT_BATCH_SIZE', 'Keys', 'LabelMap', 'LabelStore', 'LabelWriter', 'encode_keys', 'image_keys']
