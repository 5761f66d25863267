"""Pages that show an evaluation, a training run and a data set: one HTML file each, which needs no network.

evaluation.py, curves.py and dataset.py gather the numbers, page.py and templates/ make the pages. None of them needs MindSpore.
"""
