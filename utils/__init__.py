"""Tools that the model directories share: MindRecord conversion and the data doctor, the demo."""
