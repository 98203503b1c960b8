"""What a training run says of itself: its log and its config, read as data. Nothing here trains or runs anything."""
