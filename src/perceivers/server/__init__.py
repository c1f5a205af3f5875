"""HTTP server for predictions and explanations, with a web page."""
