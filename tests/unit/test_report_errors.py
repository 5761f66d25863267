"""Kinds of error and their costs, against plain loops; confusion matrix and recall by size, against literals."""
import numpy as np
import pytest

from faster_rcnn.src.model_utils.evaluation.coco_scores import coco_ap
from faster_rcnn.src.model_utils.evaluation.detections import Detections, Rle
from utils.report.evaluation import Scored, judge
from utils.report.matching import find_pairs
from utils.report.summary import BINS, confusion
from utils.report.tide import KINDS

NAMES = ("right", *KINDS[:-1], "ignored")


def scored(truth, results, kind="bbox", max_dets=100) -> Scored:
    columns = Detections(*(np.array([item[key] for item in results]) for key in ("image_id", "category_id", "score")))
    if kind == "bbox":
        columns.boxes = np.array([item["bbox"] for item in results], np.float64).reshape(-1, 4)
    else:
        columns.rles = [Rle(tuple(item["segmentation"]["size"]), item["segmentation"]["counts"]) for item in results]
    scores = coco_ap(truth, columns, kind, max_dets=max_dets)
    shapes = scores.found.boxes if kind == "bbox" else scores.found.rles
    return Scored(kind, scores.figures, scores.per_class, scores.precision, scores.truth, scores.found.image_ids,
                  scores.found.category_ids, scores.found.scores, shapes, max_dets)


def ground_truth(objects, classes=(4, 9, 2)) -> dict:
    """COCO ground truth of objects (image, category, box, crowd)."""
    images = sorted({item[0] for item in objects} | {1, 2, 3})
    return {"images": [{"id": i, "height": 200, "width": 200} for i in images],
            "categories": [{"id": number, "name": f"c{number}"} for number in classes],
            "annotations": [{"id": n, "image_id": i, "category_id": c, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
                            for n, (i, c, box, crowd) in enumerate(objects, 1)]}


def result(image, category, box, score) -> dict:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def overlap(found, box, crowd=0) -> float:
    width = min(found[0] + found[2], box[0] + box[2]) - max(found[0], box[0])
    height = min(found[1] + found[3], box[1] + box[3]) - max(found[1], box[1])
    common = max(0, width) * max(0, height)
    return common / (found[2] * found[3] if crowd else found[2] * found[3] + box[2] * box[3] - common)


def average_precision(rows, positives) -> float:
    """AP of one class. rows: (score, right)."""
    hits, points = 0, []
    for place, (_, right) in enumerate(sorted(rows, key=lambda row: -row[0]), 1):
        hits += right
        points.append((hits / positives if positives else 0, hits / place))
    return sum(max([p for r, p in points if r >= i / 100 - 1e-12], default=0) for i in range(101)) / 101 if positives else 0


def mean_ap(rows, positives, annotated) -> float:
    """rows: (category, score, right); positives, annotated: {category: objects}."""
    values = [average_precision([row[1:] for row in rows if row[0] == c], positives[c]) for c in annotated
              if positives[c] or any(row[0] == c for row in rows)]
    return sum(values) / len(values)


def errors_by_hand(truth, results):
    """(kind of each result, missed objects, {kind: gain of AP50}, AP50), from a loop over the results."""
    objects = truth["annotations"]
    order = sorted(range(len(results)), key=lambda i: -results[i]["score"])
    taken, kinds, meant = {}, {}, {}
    ious = {(i, n): overlap(results[i]["bbox"], item["bbox"], item["iscrowd"]) for i in order for n, item in enumerate(objects)
            if results[i]["image_id"] == item["image_id"]}
    for i in order:
        same = {n: iou for (k, n), iou in ious.items() if k == i and objects[n]["category_id"] == results[i]["category_id"]}
        free = [n for n, iou in same.items() if iou >= 0.5 and n not in taken and not objects[n]["iscrowd"]]
        if free:
            best = max(free, key=lambda n: (same[n], n))
            taken[best], kinds[i] = i, "right"
        elif any(iou >= 0.5 and objects[n]["iscrowd"] for n, iou in same.items()):
            kinds[i] = "ignored"
    for i in order:
        if i in kinds:
            continue
        here = {n: iou for (k, n), iou in ious.items() if k == i and not objects[n]["iscrowd"]}
        own = {n: iou for n, iou in here.items() if objects[n]["category_id"] == results[i]["category_id"]}
        other = {n: iou for n, iou in here.items() if n not in own}
        (near, own_iou), (far, other_iou) = (max(side.items(), key=lambda item: (item[1], item[0]), default=(None, 0))
                                             for side in (own, other))
        if 0.1 <= own_iou <= 0.5:
            kinds[i], meant[i] = "location", near
        elif other_iou >= 0.5:
            kinds[i], meant[i] = "class", far
        elif own_iou >= 0.5:
            kinds[i] = "duplicate"
        else:
            kinds[i] = "background" if max(own_iou, other_iou) < 0.1 else "both"
    meant = {i: n for i, n in meant.items() if n not in taken}
    lacking = [n for n, item in enumerate(objects) if not item["iscrowd"] and n not in taken]
    missed = [n for n in lacking if n not in meant.values()]
    first = {n: i for i, n in reversed(list(meant.items()))}         # the best result of each object

    annotated = {}
    for item in objects:
        if not item["iscrowd"]:
            annotated[item["category_id"]] = annotated.get(item["category_id"], 0) + 1
    plain = {i: (results[i]["category_id"], results[i]["score"], kinds[i] == "right") for i in order if kinds[i] != "ignored"}
    base = mean_ap(plain.values(), annotated, annotated)
    gains = {}
    for kind in KINDS[:-1]:
        rows = [row for i, row in plain.items() if kinds[i] != kind]
        if kind in ("class", "location"):
            rows += [(objects[n]["category_id"], results[i]["score"], True) for n, i in first.items() if kinds[i] == kind]
        gains[kind] = mean_ap(rows, annotated, annotated) - base
    for name, gone in (("missed", missed), ("false negatives", lacking)):
        fewer = {c: count - sum(objects[n]["category_id"] == c for n in gone) for c, count in annotated.items()}
        gains[name] = mean_ap(plain.values(), fewer, annotated) - base
    gains["false positives"] = mean_ap([row for row in plain.values() if row[2]], annotated, annotated) - base
    return kinds, missed, {name: max(0, gain) for name, gain in gains.items()}, base


def random_set(seed: int):
    """Objects close together, with results near them, so that every kind of error occurs."""
    rng = np.random.default_rng(seed)
    objects = [(int(rng.integers(1, 4)), int(rng.choice([4, 9, 2])),
                [*rng.integers(0, 120, 2).tolist(), *rng.integers(20, 60, 2).tolist()], int(rng.random() < 0.1)) for _ in range(14)]
    results = []
    for score in rng.permutation(60) / 60:
        image, category, box, _ = objects[rng.integers(len(objects))]
        shift = rng.normal(0, rng.choice([2, 9, 30]), 4)
        box = np.maximum(np.array(box) + shift, [-50, -50, 3, 3]).round(1).tolist()
        results.append(result(image, category if rng.random() < 0.7 else int(rng.choice([4, 9, 2])), box, float(score)))
    return ground_truth(objects), results


def test_kinds_and_costs_match_a_plain_loop():
    seen, gained = set(), set()
    for seed in range(12):
        truth, results = random_set(seed)
        kind = scored(truth, results)
        judged, more = judge(kind)
        kinds, missed, gains, base = errors_by_hand(kind.truth, results)
        rows = sorted(range(len(results)), key=lambda i: -results[i]["score"])      # best first
        assert [NAMES[number] for number in judged.errors.kinds] == [kinds[i] for i in rows], seed
        assert np.flatnonzero(judged.errors.missed).tolist() == missed, seed
        assert more["tide"]["costs"] == pytest.approx(gains, abs=1e-9), seed
        # The loop's AP50 is that of the COCO evaluation.
        assert judged.errors.ap == pytest.approx(base, abs=1e-9) == pytest.approx(kind.figures["AP50"], abs=1e-9), seed
        seen |= set(kinds.values()) | ({"missed"} if missed else set())
        gained |= {name for name, gain in gains.items() if gain > 0}
    assert seen == {*NAMES, "missed"} and gained == {*KINDS, "false positives", "false negatives"}


def test_each_kind_is_recognised():
    box, small = [10, 10, 40, 40], [10, 10, 40, 12]
    truth = ground_truth([(1, 4, box, 0), (1, 9, [100, 100, 40, 40], 0), (2, 4, box, 0), (2, 2, [100, 100, 50, 50], 1)])
    cases = [(result(1, 4, box, 0.9), "right"), (result(1, 4, [11, 10, 40, 40], 0.8), "duplicate"),
             (result(1, 9, box, 0.7), "class"), (result(1, 9, [100, 100, 40, 12], 0.6), "location"),
             (result(1, 9, small, 0.5), "both"), (result(1, 4, [160, 0, 20, 20], 0.4), "background"),
             (result(3, 4, box, 0.3), "background"), (result(2, 2, [110, 110, 20, 20], 0.2), "ignored")]
    judged, more = judge(scored(truth, [item for item, _ in cases]))
    assert [NAMES[number] for number in judged.errors.kinds] == [kind for _, kind in cases]
    # A better box would find the object of class 9; nothing would find the object of image 2.
    assert judged.errors.missed.tolist() == [False, False, True, False]
    assert more["tide"]["counts"] == {"class": 1, "location": 1, "both": 1, "duplicate": 1, "background": 2, "missed": 1}


@pytest.mark.parametrize("results", [[], [result(2, 4, [0, 0, 5, 5], 0.5)]], ids=["no detections", "no objects"])
def test_nothing_to_compare(results):
    objects = [(1, 4, [10, 10, 40, 40], 0)] if not results else []
    judged, more = judge(scored(ground_truth(objects), results))
    assert judged.errors.ap == (0.0 if objects else -1.0)
    assert more["tide"]["counts"]["missed"] == len(objects) and more["tide"]["counts"]["background"] == len(results)
    assert set(more["tide"]["costs"].values()) == {0.0} or objects


def test_ap_matches_the_published_set(data_dir):
    folder = data_dir / "coco_known_answer"
    for kind, published in (("bbox", .696973), ("segm", .562288)):
        scores = coco_ap(folder / "instances_val2014_100.json", folder / f"instances_val2014_fake{kind}100_results.json", kind)
        shapes = scores.found.boxes if kind == "bbox" else scores.found.rles
        item = Scored(kind, scores.figures, scores.per_class, scores.precision, scores.truth, scores.found.image_ids,
                      scores.found.category_ids, scores.found.scores, shapes)
        judged, _ = judge(item)
        assert judged.errors.ap == pytest.approx(scores["AP50"], abs=1e-9) == pytest.approx(published, abs=1e-6)


def test_only_the_best_detections_of_a_class_count():
    truth = ground_truth([(1, 4, [10, 10, 40, 40], 0)])
    results = [result(1, 4, [10, 10, 40, 40], 0.1), *(result(1, 4, [100, 100, 9, 9], 0.5) for _ in range(3)),
               result(1, 9, [100, 100, 9, 9], 0.4)]
    judged, _ = judge(scored(truth, results, max_dets=3))
    assert judged.found.scores.tolist() == [0.5, 0.5, 0.5, 0.4] and judged.errors.missed.tolist() == [True]


def test_confusion_matrix_and_recall_by_size():
    truth = ground_truth([(1, 4, [10, 10, 10, 10], 0), (1, 9, [100, 100, 40, 40], 0), (2, 4, [10, 10, 100, 100], 0)])
    results = [result(1, 9, [10, 10, 10, 10], 0.95), result(1, 4, [10, 10, 10, 10], 0.5), result(1, 9, [100, 100, 40, 30], 0.7),
               result(2, 2, [150, 150, 9, 9], 0.05)]
    kind = scored(truth, results)
    judged, more = judge(kind)
    tables = confusion(judged.objects, judged.found, find_pairs(judged.objects, judged.found), 3)
    assert [table["iou"] for table in tables] == [0.3, 0.5, 0.75, 0.9]
    # Labels: 0 is category 2, 1 is 4, 2 is 9, 3 is background. A result of 9 takes the object of 4, so 4 finds none.
    half = np.array(tables[1]["counts"]).reshape(-1, 4).tolist()
    assert half == [[1, 2, 19, 1], [2, 2, 14, 1], [3, 0, 1, 1], [3, 1, 10, 1]]
    assert [2, 2, 14, 1] in np.array(tables[2]["counts"]).reshape(-1, 4).tolist()
    assert [3, 2, 14, 1] in np.array(tables[3]["counts"]).reshape(-1, 4).tolist()       # its IoU is 0.75
    sizes = {row["name"]: (row["objects"], sum(row["found"])) for row in more["bySize"]}
    assert sizes == {"< 16": (1, 1), "16–32": (0, 0), "32–64": (1, 1), "64–96": (0, 0), "96–192": (1, 0), "≥ 192": (0, 0)}
    assert more["byClass"]["objects"] == [0, 2, 1] and more["byClass"]["right"][2][14] == 1 == more["byClass"]["wrong"][2][19]
    # Scores from 0.50: 2 right, 1 wrong, 1 missing, so F1 is 4 / 6. From 0.70 F1 is 2 / 5, from 0.05 it is 4 / 7.
    assert more["bestBin"] in range(2, 11) and BINS == 20
