"""Tools that the model directories share: MindRecord conversion and data checks, launchers, rank tables, reports, the demo."""
