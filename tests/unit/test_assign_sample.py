"""Matching and sampling of both stages against loops in numpy."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from faster_rcnn.src.FasterRcnn import bbox_assign_sample as first
from faster_rcnn.src.FasterRcnn import bbox_assign_sample_stage2 as second
from faster_rcnn.src.FasterRcnn.anchor_generator import AnchorGenerator

pytestmark = pytest.mark.usefixtures("eager")


def compile_with(function, **options):
    """Return function(*tensors, **options), compiled, for numpy arrays."""
    @ms.jit
    def compiled(*tensors):
        return function(*tensors, **options)

    def call(*arrays):
        out = compiled(*(Tensor(array) for array in arrays))
        return [part.asnumpy() for part in out] if isinstance(out, tuple) else out.asnumpy()

    return call


def match_usable(anchors, gt_boxes, gt_valid, anchor_valid, **options):
    return first.match_anchors(anchors, gt_boxes, gt_valid, anchor_valid=anchor_valid, **options)


def iou_matrix(boxes, others):
    """Return the IoU (B, O) in float32, like the code under test, so that ties remain ties."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    side = np.maximum(np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - low, np.float32(0))
    inter = side[..., 0] * side[..., 1]
    area = [(b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (boxes, others)]
    return inter / np.maximum(area[0][:, None] + area[1][None] - inter, np.float32(1e-6))


def match_by_hand(anchors, boxes, allowed, pos=0.7, neg=0.3, least=0.0, low_quality=True, takes_gt=False):
    labels, matched = np.full(len(anchors), -1), np.zeros(len(anchors), int)
    iou = iou_matrix(anchors, boxes) * allowed[:, None] if len(boxes) else np.zeros((len(anchors), 1))
    for a in range(len(anchors)):
        matched[a] = iou[a].argmax()
        labels[a] = 1 if iou[a].max() >= pos else 0 if iou[a].max() < neg else -1
    for g in range(len(boxes) if low_quality else 0):
        if iou[:, g].max() > 0 and iou[:, g].max() >= least:
            for a in np.flatnonzero(iou[:, g] == iou[:, g].max()):
                labels[a] = 1
                matched[a] = g if takes_gt else matched[a]
    labels[~allowed] = -1
    return labels, matched


def scene():
    """Return anchors, and ground truth of four images: boxes with gaps between the slots, none, one, ties."""
    anchors = AnchorGenerator([4], [0.5, 1.0, 2.0], [8, 16]).grid([(8, 10), (4, 5)])
    rng = np.random.default_rng(0)
    gt, valid = np.zeros((4, 9, 4), np.float32), np.zeros((4, 9), bool)
    corner = rng.uniform(0, 50, (7, 2))
    gt[0, [0, 1, 3, 4, 6, 7, 8]] = np.concatenate([corner, corner + rng.uniform(5, 40, (7, 2))], 1)
    valid[0, [0, 1, 3, 4, 6, 7, 8]] = True
    gt[0, 2], gt[0, 5] = [0, 0, 60, 60], [8, 8, 30, 30]                            # not valid: must not count
    gt[2, 0], valid[2, 0] = anchors[77], True
    gt[3, :4] = [[30, 30, 32, 32], [16, 16, 48, 48], [16, 16, 48, 48], [900, 900, 950, 950]]
    valid[3, :4] = True
    return anchors, gt, valid


@pytest.mark.parametrize("options", [{}, {"least": 0.3, "takes_gt": True}, {"low_quality": False, "pos": 0.5}])
def test_match_anchors_matches_loop(options):
    anchors, gt, valid = scene()
    allowed = np.random.default_rng(1).uniform(size=(4, len(anchors))) < 0.9
    names = {"least": "min_pos_iou", "takes_gt": "low_quality_takes_gt", "pos": "pos_thr"}
    match = compile_with(match_usable, **{names.get(key, key): value for key, value in options.items()})
    labels, matched = match(anchors, gt, valid, allowed)
    for i in range(4):
        slots = np.flatnonzero(valid[i])
        expected, index = match_by_hand(anchors, gt[i, slots], allowed[i], **options)
        np.testing.assert_array_equal(labels[i], expected)
        positive = expected == 1
        np.testing.assert_array_equal(matched[i][positive], slots[index[positive]] if len(slots) else [])
    assert (labels[1][allowed[1]] == 0).all()                                      # no ground truth: all background
    if options.get("low_quality", True) and "least" not in options:
        assert (labels[3] == 1).sum() > 4                                          # several anchors are equally good


def test_match_anchors_without_any_ground_truth():
    anchors, gt, valid = scene()
    labels, matched = compile_with(first.match_anchors)(anchors, gt, valid & False)
    assert (labels == 0).all() and (matched == 0).all()


def test_anchor_masks():
    generator = AnchorGenerator([1], [1.0], [8])
    anchors, corners = generator.grid([(4, 5)]), np.concatenate(generator.corners([(4, 5)]))
    sizes = np.array([[32, 40], [17, 24]], np.float32)
    got = compile_with(first.anchors_in_padding)(corners, sizes).reshape(2, 4, 5)
    assert got[0].all()
    assert got[1, :3, :3].all() and got[1].sum() == 9                              # 17 rows reach into the third cell
    inside = compile_with(first.anchors_in_image)(anchors, sizes)
    expected = [[(a[0] >= 0) & (a[1] >= 0) & (a[2] <= w) & (a[3] <= h) for a in anchors] for h, w in sizes]
    np.testing.assert_array_equal(inside, expected)


@pytest.mark.parametrize("positives, negatives, most", [
    (40, 500, 0), (5, 500, 0), (40, 3, 0), (0, 500, 0), (0, 0, 0), (5, 500, 16)])
def test_sample_anchors(positives, negatives, most):
    """most: limit on background samples; 0: no limit but the batch."""
    rng = np.random.default_rng(2)
    labels = rng.permutation([1] * positives + [0] * negatives + [-1] * (600 - positives - negatives)).astype(np.int32)
    labels = np.stack([labels, rng.permutation(labels)])
    sample = compile_with(first.sample_anchors, num_pos=16, num_total=32, num_neg=most)
    noise = rng.uniform(size=labels.shape).astype(np.float32)
    index, positive, negative = sample(labels, noise)
    assert index.shape == (2, 32)
    for i in range(2):
        count = min(positives, 16)
        assert positive[i].sum() == count and positive[i, :count].all()
        assert negative[i].sum() == min(negatives, 32 - count, most or 32)
        assert (labels[i, index[i, positive[i]]] == 1).all() and (labels[i, index[i, negative[i]]] == 0).all()
        chosen = index[i, positive[i] | negative[i]]
        assert len(set(chosen)) == len(chosen)
    if positives == 40 and negatives == 500:
        other = sample(labels, rng.uniform(size=labels.shape).astype(np.float32))[0]
        assert set(other[0]) != set(index[0])                                      # other noise, other anchors


def test_sampling_is_uniform():
    """Each of 40 positives is drawn with probability 1/4: 400 draws, to 5 standard deviations."""
    rng = np.random.default_rng(3)
    labels = np.array([1] * 40 + [0] * 60, np.int32)[None].repeat(400, 0)
    index, positive, _ = compile_with(first.sample_anchors, num_pos=10, num_total=20)(
        labels, rng.uniform(size=labels.shape).astype(np.float32))
    counts = np.bincount(index[positive], minlength=100)[:40]
    assert counts.sum() == 4000
    assert np.abs(counts - 100).max() < 5 * np.sqrt(400 * 0.25 * 0.75)


def test_anchor_targets():
    anchors, gt, valid = scene()
    match = compile_with(first.match_anchors)
    labels, matched = match(anchors, gt, valid)
    index = np.tile(np.flatnonzero(labels[0] == 1)[:6], (4, 1)).astype(np.int32)
    got = compile_with(first.anchor_targets)(anchors, gt, matched, index)
    for a, target in zip(index[0], got[0]):
        anchor, box = anchors[a], gt[0, matched[0, a]]
        size, box_size = anchor[2:] - anchor[:2], box[2:] - box[:2]
        shift = ((box[:2] + box[2:]) - (anchor[:2] + anchor[2:])) / 2 / size
        np.testing.assert_allclose(target, [*shift, *np.log(box_size / size)], atol=1e-5)
    assert np.isfinite(got).all()


def proposals_of(gt, valid, rng, count=60):
    """Return proposals (N, count, 4), half of them near objects."""
    boxes = np.zeros((len(gt), count, 4), np.float32)
    for i in range(len(gt)):
        corner = rng.uniform(0, 60, (count, 2))
        boxes[i] = np.concatenate([corner, corner + rng.uniform(5, 40, (count, 2))], 1)
        slots = np.flatnonzero(valid[i])
        for k in range(count // 2 if len(slots) else 0):
            boxes[i, k] = gt[i, rng.choice(slots)] + rng.uniform(-2, 2, 4)
    return boxes


@pytest.mark.parametrize("case", ["mixed", "no ground truth", "no proposals", "all padding"])
def test_sample_rois(case):
    rng = np.random.default_rng(4)
    _, gt, valid = scene()
    proposals = proposals_of(gt, valid, rng)
    there = rng.uniform(size=proposals.shape[:2]) < 0.8
    if case in ("no ground truth", "all padding"):
        valid = valid & False
    if case in ("no proposals", "all padding"):
        there = there & False
    labels = rng.integers(1, 9, valid.shape).astype(np.int32)
    noise = rng.uniform(size=(4, 60 + 9)).astype(np.float32)
    sample = compile_with(second.sample_rois, num_pos=8, num_total=32)
    rois, classes, targets, positive, chosen, matched = sample(proposals, there, gt, labels, valid, noise)
    assert rois.shape == (4, 32, 4) and matched.shape == (4, 32)
    for i in range(4):
        candidates = np.concatenate([proposals[i][there[i]], gt[i][valid[i]]])
        slots = np.flatnonzero(valid[i])
        iou = iou_matrix(candidates, gt[i, slots]) if len(slots) else np.zeros((len(candidates), 1))
        is_object = iou.max(1) >= 0.5 if len(candidates) else np.zeros(0, bool)
        count = min(is_object.sum(), 8)
        total = count + min((~is_object).sum(), 32 - count)
        assert positive[i, :count].all() and positive[i].sum() == count
        assert chosen[i, :total].all() and chosen[i].sum() == total
        rows = [np.flatnonzero((candidates == roi).all(1)) for roi in rois[i, :total]]
        assert all(len(row) for row in rows)
        assert len({row[0] for row in rows}) >= total - 2                          # once each, except twins
        for s in range(total):
            row = rows[s][0]
            assert is_object[row] == positive[i, s]
            if positive[i, s]:
                own = slots[iou[row].argmax()]
                assert matched[i, s] == own and classes[i, s] == labels[i, own]
                size, box_size = rois[i, s, 2:] - rois[i, s, :2], gt[i, own, 2:] - gt[i, own, :2]
                shift = ((gt[i, own, :2] + gt[i, own, 2:]) - (rois[i, s, :2] + rois[i, s, 2:])) / 2 / size
                np.testing.assert_allclose(targets[i, s], [*shift * 10, *np.log(box_size / size) * 5], atol=1e-4)
        for part in (classes, matched, targets):
            assert (part[i, count:] == 0).all()
        assert (rois[i, total:] == 0).all()


def sampled_by_hand(proposals, there, gt, labels, valid, noise, num_pos, num_total, num_neg):
    """Return rois (S, 4), labels (S,), targets (S, 4), positive (S,), valid (S,) and object index (S,) of one image.

    Objects come first, then at most `num_neg` background samples, each by descending noise.
    """
    size, slots = min(num_total, len(proposals) + len(gt)), np.flatnonzero(valid)
    rois, targets = np.zeros((size, 4), np.float32), np.zeros((size, 4), np.float32)
    classes, matched = np.zeros(size, np.int32), np.zeros(size, np.int32)
    positive, chosen = np.zeros(size, bool), np.zeros(size, bool)
    boxes = np.concatenate([proposals, gt])
    iou = iou_matrix(boxes, gt[slots]) if len(slots) else np.zeros((len(boxes), 1))
    usable = [k for k in np.argsort(-noise, kind="stable") if np.concatenate([there, valid])[k]]
    objects = [k for k in usable if iou[k].max() >= 0.5][:num_pos]
    background = [k for k in usable if iou[k].max() < 0.5][:min(num_neg, size - len(objects))]
    for s, k in enumerate(objects + background):
        rois[s], chosen[s] = boxes[k], True
        if s >= len(objects):
            continue
        positive[s], matched[s] = True, slots[iou[k].argmax()]
        own, classes[s] = gt[matched[s]], labels[matched[s]]
        side, own_side = boxes[k, 2:] - boxes[k, :2], own[2:] - own[:2]
        shift = ((own[:2] + own[2:]) - (boxes[k, :2] + boxes[k, 2:])) / 2 / side
        targets[s] = [*shift * 10, *np.log(own_side / side) * 5]
    return rois, classes, targets, positive, chosen, matched


@pytest.mark.slow
@pytest.mark.parametrize("num_neg", [1, 6, 24, 31, 32, 500])
def test_background_is_limited(num_neg):
    """The samples and their order match the loop; with equal noise, their number. 24 = 32 - num_pos, 32 = num_total."""
    limited = compile_with(second.sample_rois, num_pos=8, num_total=32, num_neg=num_neg)
    _, gt, there_are = scene()
    for case in ("mixed", "equal noise", "no ground truth", "no proposals", "all padding"):
        rng = np.random.default_rng(6)
        proposals = proposals_of(gt, there_are, rng)
        valid = there_are & (case not in ("no ground truth", "all padding"))
        there = (rng.uniform(size=proposals.shape[:2]) < 0.8) & (case not in ("no proposals", "all padding"))
        labels = rng.integers(1, 9, valid.shape).astype(np.int32)
        noise = rng.uniform(size=(4, 60 + 9)).astype(np.float32)
        noise = np.full_like(noise, 0.5) if case == "equal noise" else noise
        arrays = proposals, there, gt, labels, valid, noise
        got = limited(*arrays)
        for i in range(4):
            expected = sampled_by_hand(*(array[i] for array in arrays), 8, 32, num_neg)
            if case == "equal noise":       # any choice is right
                np.testing.assert_array_equal(got[3][i], expected[3])
                np.testing.assert_array_equal(got[4][i], expected[4])
                continue
            for part, wanted in zip(got, expected):
                np.testing.assert_allclose(part[i], wanted, atol=1e-4 if part.ndim == 3 else 0, err_msg=f"{case} {i}")


def test_boxes_are_matched_with_their_last_pixel_and_coded_without():
    """A proposal of 9 x 9 pixels in an object of 10 x 14: IoU 0.58, or 0.61 with the last pixels."""
    proposals, gt = np.float32([[[0, 0, 9, 9]]]), np.float32([[[0, 0, 10, 14]]])
    arrays = proposals, np.ones((1, 1), bool), gt, np.full((1, 1), 3, np.int32), np.ones((1, 1), bool), np.zeros((1, 1), np.float32)
    for threshold, iou_offset, wanted in ((0.57, None, 3), (0.6, None, 0), (0.6, 1, 3), (0.62, 1, 0)):
        sample = compile_with(second.sample_rois, num_pos=1, num_total=1, pos_thr=threshold, neg_thr=threshold, add_gt=False,
                              stds=(1, 1, 1, 1), iou_offset=iou_offset)
        _, labels, targets, *_ = sample(*arrays)
        assert labels.item() == wanted, (threshold, iou_offset)
        if wanted:
            np.testing.assert_allclose(targets[0, 0], [0.5 / 9, 2.5 / 9, np.log(10 / 9), np.log(14 / 9)], rtol=1e-5)


def test_rois_with_low_quality_take_the_object_they_are_best_for():
    """The second box overlaps object 0 more, but is the best box for object 1."""
    boxes = np.array([[[0, 0, 10, 10], [0, 0, 10, 9]]], np.float32)
    gt = np.array([[[0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 0, 0]]], np.float32)
    valid, there = np.array([[True, True, False]]), np.ones((1, 2), bool)
    _, plain = compile_with(second.match_rois)(boxes, there, gt, valid)
    _, taken = compile_with(second.match_rois, low_quality=True, min_pos_iou=0.5)(boxes, there, gt, valid)
    _, strict = compile_with(second.match_rois, low_quality=True, min_pos_iou=0.7)(boxes, there, gt, valid)
    assert plain.tolist() == [[0, 0]] and taken.tolist() == [[0, 1]] and strict.tolist() == [[0, 0]]
