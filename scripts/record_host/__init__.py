"""The parts of record-host.py, which is next to this folder: what is written down, TLS and authd, the API, NFC, experiments."""
