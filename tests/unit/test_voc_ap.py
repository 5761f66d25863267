"""PASCAL VOC AP: a case by hand, a plain loop after VOCdevkit, and what difficult objects do."""
import numpy as np
import pytest

from faster_rcnn.src.model_utils.config import load_config
from faster_rcnn.src.model_utils.evaluation.coco_scores import coco_ap
from faster_rcnn.src.model_utils.evaluation.detections import Collector
from faster_rcnn.src.model_utils.evaluation.report import other_scores
from faster_rcnn.src.model_utils.evaluation.voc_ap import average_precision, pair_iou, voc_ap

CATEGORIES = [{"id": 5, "name": "cat", "label": 1}, {"id": 2, "name": "dog", "label": 2}]


def truth_of(objects, images=3) -> dict:
    """objects: (image, category, x, y, width, height, difficult)."""
    annotations = [{"id": i, "image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3],
                    "iscrowd": 0, **({"difficult": 1} if difficult else {})}
                   for i, (image, category, *box, difficult) in enumerate(objects, 1)]
    return {"images": [{"id": i} for i in range(1, images + 1)], "annotations": annotations, "categories": CATEGORIES}


def result(image, category, score, *box) -> dict:
    return {"image_id": image, "category_id": category, "score": score, "bbox": list(box)}


# ------------------------------------------------------------------------------------------------------------- by hand

def test_by_hand():
    """4 cats of which 1 is difficult; right, duplicate, difficult, wrong, right: precisions 1/1, 1/2, -, 1/3, 2/4."""
    truth = truth_of([(1, 5, 10, 10, 19, 19, 0), (1, 5, 60, 10, 19, 19, 1), (2, 5, 10, 10, 19, 19, 0),
                      (3, 5, 10, 10, 19, 19, 0), (3, 2, 50, 50, 9, 9, 0)])
    results = [result(2, 5, 0.5, 10, 10, 19, 19), result(1, 5, 0.9, 10, 10, 19, 19), result(1, 5, 0.8, 12, 10, 19, 19),
               result(1, 5, 0.7, 60, 10, 19, 19), result(3, 5, 0.6, 90, 90, 19, 19), result(3, 5, 0.95, 50, 50, 9, 9)]
    scores = voc_ap(truth, results[:-1])
    cat = scores.per_class["cat"]
    # Recall 1/3 at precision 1, 2/3 at 2/4: points 0, .1, .2, .3 at 1, .4, .5, .6 at 1/2.
    assert cat == {"AP": pytest.approx((1 + 0.5) / 3), "AP_11": pytest.approx((4 + 1.5) / 11), "objects": 3, "difficult": 1}
    assert scores.per_class["dog"] == {"AP": 0.0, "AP_11": 0.0, "objects": 1, "difficult": 0}
    assert scores.figures == {"mAP": pytest.approx(0.25), "mAP_11": pytest.approx(0.25)}
    assert list(scores.per_class) == ["dog", "cat"]
    # A cat where the dog is: wrong, and first of all.
    assert voc_ap(truth, results).per_class["cat"]["AP"] == pytest.approx((0.5 + 2 / 5) / 3)
    lines = scores.lines()
    assert lines[0].endswith("area under the curve ] = 0.250") and lines[1].endswith("11 points of VOC2007 ] = 0.250")
    assert [line.split() for line in lines[3:]] == [["dog", "0.000", "0.000", "1", "0"], ["cat", "0.500", "0.500", "3", "1"]]


def test_the_last_pixels_belong_to_the_box():
    """Corners (10, 10, 19, 19) are 10 x 10 pixels; (15, 10, 24, 19) shares 5 x 10 with it, (10, 10, 19, 14) 10 x 5."""
    boxes = np.array([[10, 10, 9, 9]] * 3, np.float64)
    others = np.array([[15, 10, 9, 9], [10, 10, 9, 4], [19, 19, 3, 3]], np.float64)
    np.testing.assert_allclose(pair_iou(boxes, others), [50 / 150, 0.5, 1 / 115])
    truth = truth_of([(1, 5, 10, 10, 9, 9, 0)])
    assert voc_ap(truth, [result(1, 5, 1, 10, 10, 9, 4)]).per_class["cat"]["AP"] == 1      # 0.5 is enough
    assert voc_ap(truth, [result(1, 5, 1, 10, 10, 9, 3.99)]).per_class["cat"]["AP"] == 0


@pytest.mark.parametrize("needed", [1, 3, 7, 10, 30, 70])
def test_points_of_recall_are_met_exactly(needed):
    """All found, without a mistake, or with one after the share that just reaches the point."""
    right = np.ones(needed, bool)
    assert average_precision(right, ~right, needed) == pytest.approx((1, 1))
    if needed % 10 == 0:
        for point in range(1, 10):
            share = right[:needed * point // 10]
            assert average_precision(share, ~share, needed)[1] == pytest.approx((point + 1) / 11)


def test_classes_without_objects_do_not_count():
    scores = voc_ap(truth_of([(1, 5, 10, 10, 9, 9, 0), (1, 2, 10, 10, 9, 9, 1)]), [result(1, 5, 1, 10, 10, 9, 9)])
    assert scores.figures == {"mAP": 1.0, "mAP_11": 1.0}
    assert scores.per_class["dog"] == {"AP": -1.0, "AP_11": -1.0, "objects": 0, "difficult": 1}
    assert scores.lines()[-2].split() == ["dog", "-", "-", "0", "1"]
    assert voc_ap(truth_of([]), []).figures == {"mAP": -1.0, "mAP_11": -1.0}
    assert voc_ap(truth_of([(1, 5, 1, 1, 9, 9, 0)]), []).figures == {"mAP": 0.0, "mAP_11": 0.0}


# ---------------------------------------------------------------------------------------------------------- plain loop

def ap_by_hand(truth, results, category) -> tuple:
    """VOCdevkit's VOCevaldet, VOCap and the 11 points, step by step."""
    objects = {}
    for item in truth["annotations"]:
        if item["category_id"] == category:
            objects.setdefault(item["image_id"], []).append([item["bbox"], item.get("difficult", 0), False])
    needed = sum(not entry[1] for entries in objects.values() for entry in entries)
    tp, fp = [], []
    for item in sorted((r for r in results if r["category_id"] == category), key=lambda r: -r["score"]):
        x1, y1, width, height = item["bbox"]
        most, mine = 0.0, None
        for entry in objects.get(item["image_id"], []):
            (gx, gy, gw, gh), *_ = entry
            iw = min(x1 + width, gx + gw) - max(x1, gx) + 1
            ih = min(y1 + height, gy + gh) - max(y1, gy) + 1
            if iw > 0 and ih > 0:
                overlap = iw * ih / ((width + 1) * (height + 1) + (gw + 1) * (gh + 1) - iw * ih)
                if overlap > most:
                    most, mine = overlap, entry
        right = most >= 0.5 and not mine[1] and not mine[2]
        if right:
            mine[2] = True
        tp.append(float(right))
        fp.append(float(most < 0.5 or (not mine[1] and not right)))
    tp, fp = np.cumsum(tp), np.cumsum(fp)
    kept = tp + fp > 0          # before the first that counts there is no precision
    recall, precision = tp[kept] / needed, tp[kept] / (tp + fp)[kept]
    points = [max([p for r, p in zip(recall, precision) if round(10 * r, 9) >= k], default=0) for k in range(11)]
    mrec, mpre = [0, *recall, 1], [0, *precision, 0]
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    return sum((mrec[i] - mrec[i - 1]) * mpre[i] for i in range(1, len(mrec))), sum(points) / 11


def random_case(seed, images=12) -> tuple:
    rng = np.random.default_rng(seed)
    objects = [(int(rng.integers(1, images + 1)), int(rng.choice([5, 2])), *rng.uniform(0, 60, 2).round(1).tolist(),
                *rng.uniform(10, 60, 2).round(1).tolist(), int(rng.random() < 0.25)) for _ in range(60)]
    results = []
    for image, category, *box, _ in objects:
        for _ in range(int(rng.integers(0, 4))):
            shifted = (np.array(box) + rng.normal(0, 4, 4)).clip(1).tolist()
            other = 7 - category if rng.random() < 0.1 else category
            results.append(result(image, other, float(rng.random()), *shifted))
    return truth_of(objects, images), results


@pytest.mark.parametrize("seed", range(8))
def test_a_plain_loop_gives_the_same(seed):
    truth, results = random_case(seed)
    scores = voc_ap(truth, results)
    for item in CATEGORIES:
        row = scores.per_class[item["name"]]
        np.testing.assert_allclose((row["AP"], row["AP_11"]), ap_by_hand(truth, results, item["id"]), rtol=1e-12)
        assert 0.1 < row["AP"] < 0.95 and row["difficult"] > 2
    assert scores.figures["mAP"] == pytest.approx(np.mean([row["AP"] for row in scores.per_class.values()]))


def test_difficult_objects_do_not_change_coco_ap():
    truth, results = random_case(0)
    plain = {**truth, "annotations": [{k: v for k, v in item.items() if k != "difficult"} for item in truth["annotations"]]}
    assert coco_ap(truth, results).to_dict() == coco_ap(plain, results).to_dict()
    assert voc_ap(truth, results).figures != voc_ap(plain, results).figures


# ----------------------------------------------------------------------------------------------------------- in eval.py

def test_only_voc_has_them():
    truth = truth_of([(1, 5, 10, 10, 9, 9, 0)])
    collector = Collector(CATEGORIES)
    collector.add([[[10, 10, 19, 19]]], [[0.5]], [[1]], [[True]], [[90, 90, 1, 1, 90, 90]], [1])
    predictions = collector.detections()
    assert other_scores(load_config(), truth, predictions) == {}
    (item,) = other_scores(load_config(overrides={"dataset": "voc"}), truth, predictions).items()
    assert item[0] == "voc" and item[1].to_dict()["mAP"] == 1.0 and item[1].to_dict()["per_class"]["cat"]["AP_11"] == 1.0
