"""HTML reports of an evaluation, a training run or a data set: one self-contained file each, which loads nothing.

evaluation.py, curves.py and dataset.py gather the numbers; page.py renders them with templates/. None of them needs MindSpore.
"""
