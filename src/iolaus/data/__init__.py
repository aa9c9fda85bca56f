"""Images and targets, in batches on the device: `open.open_data` picks resident or streaming.

The interface of both: `len(data)`, and `data.batches(batch_size, epoch, train, start=0)`, which gives `(images,
targets)` on the device: float32 normalised (batch, channels, size, size), int64 (batch,) or, where the batch is mixed,
`augment.mix.Mixed`. `start` is the number of batches of the epoch to leave out, for a run that is resumed within an
epoch; `close()` ends what reads the images.
"""
