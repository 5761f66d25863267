"""Tests: unit/ (one module each), cli/ (commands, run as processes), benchmarks/ (not collected by pytest)."""
