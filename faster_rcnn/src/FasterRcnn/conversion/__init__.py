"""Conversion of whole detectors between this network and other frameworks: names, weights, configuration."""
