"""Trained models at work: predictions for files, and measures over whole splits. No Lightning here."""
