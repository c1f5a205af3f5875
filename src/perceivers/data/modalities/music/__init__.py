"""Music: MIDI files as sequences of events."""
