"""The label store: top-k score maps of many images in one directory, read by memory map, written by many processes.

Files, for `n` images with a map of `[k, S, S]` scores and class ids each:

    meta.json            format version, annotator, classes, grid, k, view rule, layout; once finished, also the skipped
                         images and a SHA-256 of every other file; last, a SHA-256 of all these fields
    keys.npy             bytes [n], UTF-8, zero-padded, sorted: posix paths of the images below their folder
    scores-00000.npy     float16 [m, k, S, S], logits, best first
    classes-00000.npy    uint16, or uint32 above 65,536 classes, [m, k, S, S]
    sizes-00000.npy      uint32 [m, 2], width and height of the image in pixels; (0, 0) if it has no map
    progress-00000       while writing: one byte per batch on disk; locked by the process that writes the shard
    lock                 while writing: locked by the process that begins or finalises the store

A shard is a fixed range of the sorted keys, cut into fixed batches. Shards and batches depend on the image list alone,
so a finished store has the same bytes for any number of processes and resumes.

The view rule (`tokenlabel.labels.view_rule`) defines the part of an image that its map covers; together with the
image's size it gives the map's View.
"""

from tokenlabel.labels.store.keys import Keys, encode_keys, image_keys
from tokenlabel.labels.store.reader import LabelMap, LabelStore
from tokenlabel.labels.store.writer import DEFAULT_BATCH_SIZE, LabelWriter

__all__ = ['DEFAULT_BATCH_SIZE', 'Keys', 'LabelMap', 'LabelStore', 'LabelWriter', 'encode_keys', 'image_keys']
