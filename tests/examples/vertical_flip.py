"""An augmentation: what follows the imports goes to the end of src/model_utils/data/augmentation.py."""
import numpy as np

from faster_rcnn.src.model_utils.data.augmentation import Plan, augmentation


@augmentation
def vertical_flip(plan: Plan, rng: np.random.Generator, chance: float = 0.5) -> None:
    """Flip vertically, for images without a natural orientation, such as microscope images."""
    if rng.random() < chance:
        plan.flip_y = not plan.flip_y
