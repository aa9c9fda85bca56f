"""Images and targets in batches on the device: `open.open_data` picks resident or streaming (`epoch.Batches`)."""
