"""Self-contained HTML reports, model cards and publishing to the Hugging Face Hub."""
