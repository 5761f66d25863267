"""The network: backbone, neck, region proposals, heads and their losses."""
