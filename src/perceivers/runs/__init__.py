"""Run folders: their record, summary, report and comparison. No training engine is imported."""
