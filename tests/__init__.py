"""Tests: unit/ (one module each), cli/ (the commands, as processes), benchmarks/ (not collected)."""
