"""What happened in runs and studies as one HTML page that needs nothing else: no network, no scripts to be read."""
