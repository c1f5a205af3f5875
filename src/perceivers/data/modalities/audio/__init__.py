"""Audio, as a waveform or a mel spectrogram."""
